"""Distil the demo's teacher with many settings and keep the figures: python -m benchmarks.sweep --seeds 0 1 2 NAME ...

Each variant is measured by the demo's whole protocol. Results are one JSON file per variant and seed; what is there is
not made again. `python -m benchmarks.tables` writes the tables of docs/demo.md from the files in docs/results.
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch

from fewstep.config.recipe import load_recipe
from fewstep.demo.protocol import Protocol, mean_row
from fewstep.demo.shipped_rows import read_rows
from fewstep.export.export import export
from fewstep.planning.cost import forward_units
from fewstep.sampling.model_spec import ModelSpec
from fewstep.training.run import train

# every variant states what it moves; the rest is this, and below it the recipe `digits`
COMMON = {
    "student.lr": "1e-4",
    "student.warmup": "10",
    "student.lr_schedule": "cosine",
    "fake_score.lr": "4e-4",
    "fake_score.warmup": "10",
    "fake_score.lr_schedule": "cosine",
    "batch": "32",
    "budget.student_updates": "200",
}
QUICK = {"report.sheet_every": "null", "report.tensorboard": "false", "checkpoint.every": "null"}
VARIANTS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "sweep.json").read_text())


def file_name(variant: str, seed: int) -> str:
    """Where the result of a variant and seed is kept."""
    return f"{re.sub('[^a-z0-9.]+', '-', variant)}.{seed}.json"


def measure(variant: str, seed: int, *, runs: Path, results: Path) -> None:
    """Distil and measure one variant with one seed, unless its result is there."""
    result = results / file_name(variant, seed)
    if result.exists():
        return
    torch.set_num_threads(1)
    where = {"seed": str(seed), "parallel.device": "cpu", "parallel.threads": "1"}
    settings = {**COMMON, **VARIANTS[variant], **QUICK, **where}
    recipe = load_recipe("digits", [f"{key}={value}" for key, value in settings.items()])
    started = time.process_time()
    run = train(recipe, output=runs / result.stem, resume=True)
    seconds = round(time.process_time() - started, 1)
    export(run.path, run.path / "student", dtype="fp32")
    student = ModelSpec(model=str(run.path / "student"), guidance_scale=1.0)
    row = mean_row(Protocol(read_rows().real_diversity).measure(student, run.path / "measured"))
    found = {"variant": variant, "seed": seed, "cpu_seconds": seconds, "units": forward_units(recipe.config)}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps({**found, **row.to_json()}, indent=1) + "\n")
    print(variant, seed, json.dumps(row.to_json()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(VARIANTS), metavar="NAME", help="of benchmarks/sweep.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--results", type=Path, default=Path("docs/results/sweep"))
    arguments = parser.parse_args()
    for name in arguments.names:
        for seed in arguments.seeds:
            measure(name, seed, runs=arguments.runs, results=arguments.results)


if __name__ == "__main__":
    main()
