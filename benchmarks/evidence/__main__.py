"""Every method and ablation as a curve, at equal updates and at equal cost: python -m benchmarks.evidence

A study (benchmarks/evidence/digits.json) says what is compared. Each run is trained, exported, measured and written to
a file that is named by everything that decides it; what is there is not made again, and a training that was stopped
goes on. A run's folder is removed when its file is written. `python -m benchmarks.evidence.page` writes the page.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evidence.making import Place
from benchmarks.evidence.outcome import read_outcomes
from benchmarks.evidence.page import STUDY, results_of
from benchmarks.evidence.study import Run, load_study
from benchmarks.evidence.task import TASKS
from benchmarks.evidence.working import Work, told, waiting, work
from fewstep.errors import ConfigError, shown
from fewstep.training.signals import end_on_signals


def chosen(runs: Sequence[Run], *, only: Sequence[str], seeds: Sequence[int] | None) -> list[Run]:
    """The runs whose method or group is named, of these seeds.

    Raises:
        ConfigError: A name is none of a method or group.
    """
    known = dict.fromkeys(name for run in runs for name in (run.group, run.method))
    for name in only:
        if name not in known:
            raise ConfigError(f"--only names {shown(name)}; it must be one of {', '.join(known)}.")
    named = [run for run in runs if not only or run.method in only or run.group in only]
    return [run for run in named if seeds is None or run.seed in seeds]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="methods, or groups of them")
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds; all of the study unless given")
    parser.add_argument("--budget-minutes", type=float, help="stop in good order after so long")
    parser.add_argument("--list", action="store_true", help="say what is left and make nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="for what is being made")
    parser.add_argument("--results", type=Path, help="docs/results/evidence/STUDY unless given")
    parser.add_argument("--keep-students", type=Path, metavar="FOLDER", help="keep every exported student here")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    end_on_signals()
    try:
        study = load_study(given.study)
        task = TASKS[study.task]()
        runs = chosen(study.runs(task), only=given.only, seeds=given.seeds)
    except ConfigError as error:
        parser.error(str(error))
    results = given.results or results_of(given.study)
    if given.list:
        outcomes = read_outcomes(results)
        left = waiting(runs, outcomes)
        print("\n".join([*(run.title for run in left), told(left, outcomes)]))
        return
    place = Place(given.runs, results, given.keep_students, given.threads)
    ending = work(Work(runs, task, place, given.budget_minutes), lambda line: print(line, file=sys.stderr, flush=True))
    if ending == "failed":
        sys.exit("Some runs failed; the others are done.")
    print("All is done." if ending == "done" else "Stopped; the same command goes on.", file=sys.stderr)


if __name__ == "__main__":
    main()
