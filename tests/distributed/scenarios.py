"""What several processes run for the tests: one launch per number of processes, one folder per scenario.

python -m torch.distributed.run --nproc-per-node 2 -m tests.distributed.scenarios FOLDER PART
"""

import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from fewstep.distributed import sharding
from fewstep.distributed.sharding import build_mesh
from fewstep.distributed.world import join
from tests.distributed import families
from tests.training.tiny_run import recipe, run

# a batch that four processes cannot share evenly; eps keeps AdamW from turning rounding into whole steps
COMMON = ("batch=6", "student.eps=1e-3", "fake_score.eps=1e-3", "budget.student_updates=2")
LORA = "{kind: lora, rank: 2}"
BOTH_LORA = (f"student.weights={LORA}", f"fake_score.weights={LORA}")
MIXED = (f"student.weights={LORA}",)
SELECTIVE = ("memory.gradient_checkpointing=selective",)
CHECKPOINTED = ("memory.gradient_checkpointing=true",)

MODES: dict[str, tuple[str, ...]] = {
    "full": (),
    "full-checkpointed": CHECKPOINTED,
    "lora": BOTH_LORA,
    "lora-checkpointed": (*BOTH_LORA, *CHECKPOINTED),
    "lora-held": (*BOTH_LORA, "precision.frozen=bf16"),
    "lora-student": MIXED,
    "isg": ("terms.isg={margin: 0.02}", "terms.dp={steps: 2}", "terms.dm.normalise_over=2", "schedule={kind: fixed}"),
    "watched": ("report.sheet_every=1", "report.sheet_prompts=2"),
    "other-draws": ("draw={reuse_trajectory: true, anchors: stratified}", "schedule.length={ratio: 0.7}"),
    "other-draws-lora": (*BOTH_LORA, *CHECKPOINTED, "draw.reuse_trajectory=true", "student.every=3"),
    "full-student": (f"fake_score.weights={LORA}", "fake_score.align=null"),
}
"""Kinds of weights, by the name of their scenario; each also runs in the test's own process."""

SPREAD: dict[int, dict[str, tuple[str, tuple[str, ...]]]] = {
    2: {
        **{mode: (mode, ()) for mode in MODES if mode != "other-draws"},
        "full-accumulated": ("full", ("memory.microbatch=2", "memory.keep_anchor_graph=true")),
        "lora-accumulated": ("lora", ("memory.microbatch=1",)),
        "full-selective": ("full", SELECTIVE),
        "lora-replicated": ("lora", ("parallel.replicate=2",)),
        "full-prefetched": ("full", ("memory.prefetch=2",)),
        "lora-checkpointed-prefetched": ("lora-checkpointed", ("memory.prefetch=1",)),
        "full-small": ("full", ()),
        "watched": ("watched", ()),
        "lora-small": ("lora", ()),
        "lora-student-small": ("lora-student", ()),
    },
    4: {
        "full": ("full", ()),
        "full-hybrid": ("full", ("parallel.replicate=2",)),
        "full-dummies": ("full", ("memory.microbatch=1",)),
        "full-hybrid-accumulated": ("full", ("parallel.shard=2", "memory.microbatch=1")),
        "isg": ("isg", ()),
        "lora": ("lora", ()),
        "other-draws": ("other-draws", ()),
    },
}
"""Per number of processes: a scenario's mode and where it computes."""

QUICK = {"full", "lora", "watched", "full-prefetched"}
"""What two processes do in the fast tier; the others repeat it with other weights or another arrangement."""


def spread(folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """The scenarios that compare several processes with one."""

    def made(name: str) -> Callable[[], object]:
        mode, place = SPREAD[size][name]

        def scenario() -> None:
            # tiny blocks get groups of their own, as large ones do, unless the network is to be a small one
            sharding.SMALLEST_GROUP = 1_000_000 if name.endswith("-small") else 0
            run(recipe(folder, *COMMON, *MODES[mode], *place), folder / f"{name}-{size}")
            sharding.SMALLEST_GROUP = 0

        return scenario

    return {name: made(name) for name in SPREAD[size]}


def elastic(folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """Saved on one number of processes, resumed on another."""
    if size == 2:
        half = (*COMMON, "budget.student_updates=1")
        return {
            "again": lambda: stopped_and_resumed(folder),
            "half": lambda: run(recipe(folder, *half), folder / "half-2"),
            "half-lora": lambda: run(recipe(folder, *half, *BOTH_LORA), folder / "half-lora-2"),
        }
    return {
        "resumed": lambda: resumed(folder, "half-2", "resumed-4", ()),
        "resumed-lora": lambda: resumed(folder, "half-lora-2", "resumed-lora-4", BOTH_LORA),
    }


def stopped_and_resumed(folder: Path) -> None:
    """Half of the budget, then the whole, on the same processes."""
    run(recipe(folder, *COMMON, "budget.student_updates=1"), folder / "again-2")
    run(recipe(folder, *COMMON), folder / "again-2", resume=True)


def resumed(folder: Path, saved: str, name: str, mode: tuple[str, ...]) -> None:
    """Go on with a copy of what another number of processes saved."""
    if dist.get_rank() == 0:
        shutil.copytree(folder / saved, folder / name)
    dist.barrier()
    run(recipe(folder, *COMMON, *mode), folder / name, resume=True)


def part_of(name: str, size: int) -> str:
    """In which launch a scenario runs."""
    return "quick" if size == 2 and name in QUICK else "more"


def main(folder: Path, part: str) -> None:
    """Run the scenarios of a part for this number of processes; what fails leaves its traceback in FOLDER."""
    sharding.SMALLEST_GROUP = 0
    torch.set_num_threads(1)
    with join(torch.device("cpu"), timeout_minutes=5) as world:
        found = spread(folder, world.size)
        chosen = {name: scenario for name, scenario in found.items() if part_of(name, world.size) == part}
        if world.size == 4 or part == "quick":
            chosen |= elastic(folder, world.size)
        else:
            chosen |= families.scenarios(folder, world, build_mesh(world))
        for name, scenario in chosen.items():
            try:
                scenario()
            except Exception:
                (folder / f"{name}-{world.size}.rank{world.rank}.error").write_text(traceback.format_exc())
            dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
