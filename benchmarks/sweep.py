"""Distil the demo's teacher with many settings and keep the table: python -m benchmarks.sweep --seeds 0 1 2 NAME ...

Each variant is measured by the demo's whole protocol. Results are one JSON file per variant and seed; what is there is
not made again. `python -m benchmarks.tables` writes the tables of docs/demo.md from the files in docs/results.
"""

import argparse
import json
from pathlib import Path

from fewstep.demo.run import run_demo

# settings of the recipe `digits`; every variant states all that the sweep moves
START = {
    "terms.ca.scale": "2.0",
    "student.lr": "1e-4",
    "student.warmup": "100",
    "student.lr_schedule": "constant",
    "fake_score.lr": "4e-4",
    "fake_score.warmup": "100",
    "batch": "32",
    "budget.student_updates": "200",
}
VARIANTS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "sweep.json").read_text())


def overrides(name: str) -> list[str]:
    """The settings of a variant as the command line takes them."""
    settings = {**START, **VARIANTS[name]}
    quick = {"report.sheet_every": "null", "report.tensorboard": "false", "checkpoint.every": "null"}
    return [f"{key}={value}" for key, value in {**settings, **quick}.items()]


def measure(name: str, seed: int, *, folder: Path, results: Path) -> None:
    """Distil and measure one variant with one seed, unless its result is there."""
    result = results / f"{name}.{seed}.json"
    if result.exists():
        return
    demo = run_demo(output=folder / f"{name}.{seed}", seeds=(seed,), overrides=overrides(name))
    student = demo.students[0]
    row = {"variant": name, "seed": seed, "train_seconds": student.train_seconds, **student.row.to_json()}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(row, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--results", type=Path, default=Path("docs/results/sweep"))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for name in arguments.names:
            measure(name, seed, folder=arguments.folder, results=arguments.results)


if __name__ == "__main__":
    main()
