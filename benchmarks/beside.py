"""What a setting saves: python -m benchmarks.beside [--width 512] [--rank 16] SETTING=VALUE ...

Two real trainers on equal random SD3 networks make the same student updates in turn (A B A B) in one process, one as
it is and one with the settings given. Prints one JSON object: CPU seconds of both, their ratio, and how far apart the
weights are at the end, relative to how far they moved.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_trainer import random_trainer
from benchmarks.networks import Size
from benchmarks.training import rounded
from fewstep.distributed.sharding import local
from fewstep.training.trainer import Trainer

# text tokens: 77 of CLIP and these; rates that move weights by more than rounding in a few updates
_COMMON = ("backbone.max_sequence_length=19", "student.warmup=0", "fake_score.warmup=0")

_PROMPTS = 16


def beside(size: Size, common: Sequence[str], settings: Sequence[str], *, updates: int) -> dict[str, Any]:
    """Make one student update for warmth, and ``updates`` that are timed, with each of the two."""
    with (
        random_trainer(size, common, num_prompts=_PROMPTS) as plain,
        random_trainer(size, [*common, *settings], num_prompts=_PROMPTS) as changed,
    ):
        sides = {"plain": plain, "changed": changed}
        start = {role: _copied(weights) for role, weights in _weights(plain).items()}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(updates + 1):
            for name, trainer in sides.items():
                began = time.process_time()
                for _ in range(trainer.config.student.every):
                    trainer.run_step()
                seconds[name].append(time.process_time() - began)
            print({name: round(took[-1], 2) for name, took in seconds.items()}, file=sys.stderr, flush=True)
        found = _weights(changed)
        apart = {role: _apart(found[role], weights, start[role]) for role, weights in _weights(plain).items()}
    timed = {name: took[1:] for name, took in seconds.items()}
    ratios = [a / b for a, b in zip(timed["plain"], timed["changed"], strict=True)]
    return {
        "settings": list(settings),
        "both": list(common),
        "cpu_seconds": timed,
        "ratio": sum(timed["plain"]) / sum(timed["changed"]),
        "ratio_median_of_updates": statistics.median(ratios),
        "seconds_of_the_first_update": {name: took[0] for name, took in seconds.items()},
        "weights_relative_difference": apart,
    }


def _weights(trainer: Trainer) -> dict[str, Mapping[str, Tensor]]:
    return {"student": trainer.student_weights(), "fake_score": trainer.roles.fake_score.weights()}


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: local(value.detach()).clone() for name, value in weights.items()}


@torch.no_grad()
def _apart(found: Mapping[str, Tensor], plain: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    apart = torch.cat([(local(found[name]) - local(plain[name])).flatten() for name in start])
    moved = torch.cat([(local(plain[name]) - start[name]).flatten() for name in start])
    return float(apart.norm() / moved.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="settings of the second trainer")
    parser.add_argument("--both", action="append", default=[], metavar="KEY=VALUE", help="a setting of both")
    parser.add_argument("--width", type=int, default=512, help="of the networks; a multiple of 64")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--side", type=int, default=16, help="of a latent; a token is two by two")
    parser.add_argument("--rank", type=int, help="of low-rank factors; without it all weights are trained")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--updates", type=int, default=4, help="student updates that are timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(layers=arguments.layers, heads=arguments.width // 64, latent_side=arguments.side)
    common = [*_COMMON, f"batch={arguments.batch}", "memory.gradient_checkpointing=false", *arguments.both]
    if arguments.rank is not None:
        weights = f"{{kind: lora, rank: {arguments.rank}}}"
        common += [f"{role}.weights={weights}" for role in ("student", "fake_score")]
    result = beside(size, common, arguments.settings, updates=arguments.updates)
    about = {name: getattr(arguments, name) for name in ("width", "layers", "side", "rank", "batch")}
    print(json.dumps(rounded(about | result), indent=1))


if __name__ == "__main__":
    main()
