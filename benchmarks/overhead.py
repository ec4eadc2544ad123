"""Where the time of a step goes, on the embedded recipe: python -m benchmarks.overhead

Network calls (forward and backward) and optimisers (clipping, AdamW, alignment, average) are what the method costs; the
rest is what the trainer adds. Times are processor time of whole student updates.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from benchmarks.bench_trainer import bench_trainer
from fewstep.data.embeddings import EmbeddingCache
from fewstep.roles.averaging import ExponentialMovingAverage
from fewstep.roles.role import Role
from fewstep.training import trainer as trainer_module
from fewstep.training.optimiser import RoleOptimiser
from fewstep.training.step_draws import StepDraws

PARTS: list[tuple[str, Any, str]] = [
    ("network", Role, "__call__"),
    ("network", torch.Tensor, "backward"),
    ("optimiser", RoleOptimiser, "clip"),
    ("optimiser", RoleOptimiser, "update"),
    ("optimiser", ExponentialMovingAverage, "update"),
    ("optimiser", trainer_module, "align"),
    ("draws", StepDraws, "__call__"),
    ("embeddings", EmbeddingCache, "batch"),
    ("checks", trainer_module, "read_finite"),
]


@contextmanager
def timed(owner: Any, name: str, add: Callable[[float], None]) -> Iterator[None]:
    """Add the processor time of every call of ``owner.name``."""
    original = getattr(owner, name)

    def call(*arguments: Any, **keywords: Any) -> Any:
        started = time.process_time()
        try:
            return original(*arguments, **keywords)
        finally:
            add(time.process_time() - started)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, original)


def measure(*, updates: int) -> dict[str, float | int]:
    """Shares of the time of ``updates`` student updates, after one that is not counted."""
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        for part, owner, name in PARTS:

            def add(more: float, part: str = part) -> None:
                seconds[part] += more

            stack.enter_context(timed(owner, name, add))
        trainer = stack.enter_context(bench_trainer("digits"))
        every = trainer.config.student.every
        for _ in range(every):
            trainer.run_step()
        seconds.clear()
        started = time.process_time()
        for _ in range(updates * every):
            trainer.run_step()
        total = time.process_time() - started
    shares = {f"{part}_share": round(value / total, 4) for part, value in sorted(seconds.items())}
    overhead = 1.0 - (seconds["network"] + seconds["optimiser"]) / total
    return {
        "updates": updates,
        "seconds_per_update": round(total / updates, 4),
        **shares,
        "overhead_share": round(overhead, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Share of a step that is neither network call nor optimiser.")
    parser.add_argument("--updates", type=int, default=20, help="student updates")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(measure(updates=arguments.updates), indent=2))


if __name__ == "__main__":
    main()
