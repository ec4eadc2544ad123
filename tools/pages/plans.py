"""Write the table of docs/scaling.md: python -m tools.pages.plans docs/scaling.md

It stands between ``<!-- table: plans -->`` and ``<!-- end -->``: every recipe on 1 to 8 GPUs of three sizes.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewstep.config.recipe_files import recipe_names
from fewstep.planning.memory import GIB
from fewstep.planning.plan import Mode, Plan, Planner

_GPUS = (1, 2, 4, 8)
_MEMORIES = (24, 48, 80)
HEADINGS = ("recipe", "trains", "GPUs", *(f"{memory} GiB" for memory in _MEMORIES))
_PLACE = re.compile(r"(<!-- table: plans -->\n).*?(<!-- end -->)", re.DOTALL)
_MODES: tuple[Mode, ...] = ("full", "lora")


def _planned_recipes() -> list[str]:
    """Recipes with a checkpoint of their own; variants of the method need what these do, and the demo fits anywhere."""
    from fewstep.planning.porting_matrix import PORTED

    return [target.name for target in PORTED if target.name in recipe_names()]


def rows(recipe: str) -> Iterator[str]:
    """The lines of one recipe."""
    for mode in _MODES:
        planner = Planner(recipe, mode=mode)
        for gpus in _GPUS:
            plans = [planner.plan(gpus=gpus, memory=memory * GIB) for memory in _MEMORIES]
            yield line((recipe, mode, str(gpus), *map(cell, plans)))


def cell(plan: Plan) -> str:
    """One plan: peak, settings and hours, or what the smallest settings would need."""
    if not plan.fits:
        return f"no: {plan.choice.needed / GIB:.0f} GiB"
    settings = plan.choice.settings
    micro = settings["memory.microbatch"]
    named = ["whole batch" if micro is None else f"microbatch {micro}"]
    kind = settings["memory.gradient_checkpointing"]
    named += [] if kind is False else ["selective" if kind == "selective" else "checkpointing"]
    keeps = settings["memory.keep_anchor_graph"]
    named += [] if keeps == (micro is None) else ["anchor graphs" if keeps else "no anchor graph"]
    named += [] if settings["memory.batch_frozen_calls"] else ["single calls"]
    named += [f"offload {name}" for name in ("teacher", "trained") if settings[f"memory.offload.{name}"]]
    return f"{plan.choice.memory.peak / GIB:.1f} GiB, {plan.hours:.0f} h: {', '.join(named)}"


def table() -> str:
    """All lines."""
    body = [text for recipe in _planned_recipes() for text in rows(recipe)]
    return "\n".join([line(HEADINGS), line(["---"] * len(HEADINGS)), *body])


def filled(page: str, text: str) -> str:
    """The page with the table in its place."""
    return _PLACE.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    path, made = Path(sys.argv[1]), table()
    # read last: the table takes minutes, in which somebody may write on the page
    path.write_text(filled(path.read_text(encoding="utf-8"), made), encoding="utf-8")
