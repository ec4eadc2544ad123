"""Write the table of many devices in docs/scaling.md: python -m tools.pages.exchange docs/scaling.md

It stands between ``<!-- table: exchange -->`` and ``<!-- end -->``: steps per second, layout and share of exchange at
8, 64 and 512 devices, and from how many on exchange takes longer than the networks.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fewstep.planning.exchange import Links
from fewstep.planning.memory import GIB
from fewstep.planning.plan import Mode, Plan, Planner
from tools.pages.plans import line

GPUS = (8, 64, 512)
NETWORKS = (3200, 400)
CASES: tuple[tuple[str, Mode, int | None], ...] = (
    ("sana-600m", "full", None),
    ("sd3-medium", "full", None),
    ("sd3-medium", "full", 16),
    ("sd3-medium", "lora", None),
    ("sd35-large", "full", None),
    ("flux1-dev", "full", None),
)
"""Recipe, what is trained, and samples of each device where the batch grows with them."""
HEADINGS = ("recipe", "trains", "batch", "Gbit/s", *(f"{gpus} devices" for gpus in GPUS), "exchange takes longer from")
_MEMORY = 80 * GIB
_SEARCHED = tuple(2**power for power in range(3, 11))
_PLACE = re.compile(r"(<!-- table: exchange -->\n).*?(<!-- end -->)", re.DOTALL)


def rows(recipe: str, mode: Mode, per_device: int | None) -> Iterator[str]:
    """The lines of one recipe, one for each network."""
    planner = Planner(recipe, mode=mode)
    batch = str(planner.config.batch) if per_device is None else f"{per_device} a device"
    for network in NETWORKS:
        plans: dict[int, Plan] = {}
        for gpus in _SEARCHED:
            if per_device is not None:
                planner.config = planner.config.model_copy(update={"batch": per_device * gpus})
            plans[gpus] = planner.plan(gpus=gpus, memory=_MEMORY, links=Links(between=network * 1e9 / 8))
        cells = [cell(plans[gpus]) for gpus in GPUS]
        yield line((recipe, mode, batch, str(network), *cells, _taken_over(plans)))


def cell(plan: Plan) -> str:
    """Steps per second, shard x replicate, and how long exchange takes of what networks take."""
    timing = plan.timing
    assert timing is not None
    if not plan.fits:
        return f"no: {plan.choice.needed / GIB:.0f} GiB"
    speed = plan.choice.config.student.every / timing.seconds
    return f"{speed:.3g}, {timing.shard} x {timing.replicate}, {timing.exchange / timing.compute:.0%}"


def _taken_over(plans: Mapping[int, Plan]) -> str:
    for gpus, plan in plans.items():
        if plan.timing is not None and plan.timing.exchange > plan.timing.compute:
            return str(gpus)
    return f"above {_SEARCHED[-1]}"


def table() -> str:
    """All lines."""
    body = [text for case in CASES for text in rows(*case)]
    return "\n".join([line(HEADINGS), line(["---"] * len(HEADINGS)), *body])


def filled(page: str, text: str) -> str:
    """The page with the table in its place."""
    return _PLACE.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


if __name__ == "__main__":
    path, made = Path(sys.argv[1]), table()
    path.write_text(filled(path.read_text(encoding="utf-8"), made), encoding="utf-8")
