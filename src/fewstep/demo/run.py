"""The demo: distil the embedded teacher, measure the student, show both side by side.

OUTPUT/digits-1a2b3c4d/   the run of one training seed, with student/ (a diffusers folder) and demo.json inside
OUTPUT/report.html        pictures, scores and how to read them
OUTPUT/picture.png        the pictures alone
OUTPUT/result.json        what --json prints
"""

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import fewstep
from fewstep.config.identity import identity
from fewstep.config.recipe import Recipe, load_recipe
from fewstep.demo.present import METRICS, PICTURE, REPORT, STUDENT, write_report
from fewstep.demo.protocol import Protocol, Row, mean_row
from fewstep.demo.result import LEGEND, DemoResult, SeedResult, keys_of
from fewstep.demo.shipped_rows import read_rows
from fewstep.devices import cpu_threads
from fewstep.embedded import assets
from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.files import explain_write_errors
from fewstep.runs.folder import run_place
from fewstep.runs.metrics import all_lines
from fewstep.runs.places import checkpoints, completed_steps
from fewstep.sampling.model_spec import ModelSpec
from fewstep.training.run import train

_RECIPE = "digits"
_RESULT = "result.json"
_THREADS = 1
"""One thread unless asked otherwise: on a busy machine two wait for each other and can be many times slower."""


@dataclass(frozen=True)
class _Job:
    """The distillation and measurement of one training seed.

    Attributes:
        seed: The training seed.
        recipe: The recipe with that seed.
        folder: The run's folder.
        key: Names everything that decides the result.
    """

    seed: int
    recipe: Recipe
    folder: Path
    key: str

    @property
    def student(self) -> Path:
        return self.folder / STUDENT

    @property
    def measured(self) -> Path:
        """The pictures, for as long as the student is being measured."""
        return self.folder / "measured"

    @property
    def stored(self) -> Path:
        return self.folder / "demo.json"


def run_demo(
    *,
    output: str | Path = Path("runs/demo"),
    seeds: Sequence[int] = (0,),
    threads: int | None = None,
    as_json: bool = False,
    overrides: Sequence[str] = (),
    protocol: Protocol | None = None,
) -> DemoResult:
    """Distil the embedded teacher, measure the student and write the report; quick when that was done before.

    Args:
        output: Folder of the runs and of the report.
        seeds: Training seeds; the student's row is the mean over them.
        threads: Threads of the arithmetic; None is one.
        as_json: Print the measurements as one JSON object on the last line of standard output, and everything for
            people on standard error.
        overrides: Further settings of the recipe ``digits``.
        protocol: How the student is measured; as every row is, when None.

    Raises:
        ConfigError: The output folder cannot be used.
        CheckpointError: A shipped file or a checkpoint is damaged.
    """
    started = time.perf_counter()
    console = Console(stderr=as_json, highlight=False)
    output, threads = Path(output), threads or _THREADS
    with explain_write_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    protocol = protocol or Protocol(read_rows().real_diversity)
    jobs = [_job(seed, output, threads, overrides, protocol) for seed in dict.fromkeys(seeds)]
    cached = _is_done(output, jobs)
    shipped = {name: measured.row for name, measured in read_rows().rows.items()}
    with cpu_threads(threads):
        students = _stored(jobs) if cached else _make(jobs, protocol, console)
        if not cached:
            _show(output, shipped, students, jobs[0], threads, console)
    result = DemoResult(shipped, students, threads, time.perf_counter() - started, _peak_mib(), cached)
    if not cached:
        result.write(output / _RESULT)
    _tell(result, output, console)
    if as_json:
        print(json.dumps(result.to_json()), flush=True)
    return result


def _job(seed: int, output: Path, threads: int, overrides: Sequence[str], protocol: Protocol) -> _Job:
    where = ["parallel.device=cpu", f"parallel.threads={threads}"]
    recipe = load_recipe(_RECIPE, [*overrides, f"seed={seed}", *where])
    config = recipe.config
    decisive: dict[str, Any] = {
        "fewstep": fewstep.__version__,
        "config": identity(config),
        "student_updates": config.budget.student_updates,
        "assets": assets.sha256_of(assets.assets_folder(assets.DIGITS) / assets.MANIFEST_FILE),
        "protocol": asdict(protocol),
    }
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return _Job(seed, recipe, run_place(output, recipe.name, config), key)


def _is_done(output: Path, jobs: Sequence[_Job]) -> bool:
    """Whether the report is there and is about these very jobs."""
    shown = all((output / name).is_file() for name in (REPORT, PICTURE))
    measured = all(SeedResult.read(job.stored, key=job.key) for job in jobs)
    return shown and measured and keys_of(output / _RESULT) == [job.key for job in jobs]


def _stored(jobs: Sequence[_Job]) -> list[SeedResult]:
    found = [SeedResult.read(job.stored, key=job.key) for job in jobs]
    return [result for result in found if result is not None]


def _make(jobs: Sequence[_Job], protocol: Protocol, console: Console) -> list[SeedResult]:
    """Distil and measure what is not there yet."""
    students = []
    for job in jobs:
        result = SeedResult.read(job.stored, key=job.key)
        if result is None:
            result = _distil_and_measure(job, protocol, console)
            result.write(job.stored)
        students.append(result)
    return students


def _distil_and_measure(job: _Job, protocol: Protocol, console: Console) -> SeedResult:
    updates = job.recipe.config.budget.student_updates
    console.print(f"Distilling the embedded teacher: recipe {job.recipe.name}, seed {job.seed}, {updates} updates.")
    train_seconds = _distil(job, console)
    _export(job)
    student = ModelSpec(model=str(job.student), guidance_scale=1.0)
    with console.status(f"Measuring the student on {protocol.num_pictures:,} pictures"):
        row = mean_row(protocol.measure(student, job.measured))
    job.measured.rmdir()
    return SeedResult(job.key, job.seed, job.folder.name, round(train_seconds, 2), row)


def _distil(job: _Job, console: Console) -> float:
    """Train, or go on with a run that was stopped; say how long all of it took."""
    earlier = _logged_seconds(job.folder / METRICS)
    started = time.perf_counter()
    folder = train(job.recipe, root=job.folder.parent, resume=True, console=console)
    seconds = time.perf_counter() - started
    config = job.recipe.config
    done, asked = (
        completed_steps(checkpoints(folder.checkpoints)[-1]),
        config.budget.student_updates * config.student.every,
    )
    if done > asked:
        raise ConfigError(
            f"{job.folder} was trained for {done} steps, more than the {asked} of this demo. "
            f"Choose another --output, or delete that folder."
        )
    if done < asked:
        # asked to stop by a signal, and saved: there is no student to measure yet
        console.print("The demo was stopped; `fewstep demo` goes on where it stopped.")
        sys.exit(0)
    return earlier + seconds


def _logged_seconds(metrics: Path) -> float:
    """Time of the steps that an earlier process completed."""
    return sum(line.figures.get("seconds", 0.0) for line in all_lines(metrics))


def _export(job: _Job) -> None:
    if (job.student / "fewstep.json").is_file():
        # of an earlier, shorter or unfinished demo: this run has just been trained further
        shutil.rmtree(job.student)
        shutil.rmtree(job.measured, ignore_errors=True)
    export(job.folder, job.student, dtype="fp32")


def _show(
    output: Path,
    shipped: Mapping[str, Row],
    students: Sequence[SeedResult],
    job: _Job,
    threads: int,
    console: Console,
) -> None:
    rows = {**shipped, "student_4": mean_row([student.row for student in students])}
    with console.status("Drawing the pictures of the report"):
        write_report(output, rows=rows, students=students, recipe=job.recipe, threads=threads)


def _peak_mib() -> float:
    """Largest resident memory of this process so far."""
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _tell(result: DemoResult, output: Path, console: Console) -> None:
    console.print()
    console.print(result.table())
    console.print(LEGEND, style="dim")
    console.print()
    done = "From an earlier demo" if result.cached else f"Done in {result.total_seconds:.0f} s"
    console.print(f"{done}. The pictures, side by side: {output / REPORT}", soft_wrap=True)
