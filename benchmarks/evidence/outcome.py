"""What came out of a run, one file for each key, so that nothing is made twice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.evidence.study import Run
from fewstep.files import load_json, write_json


@dataclass(frozen=True)
class Outcome:
    """A student's figures, or why there are none.

    Attributes:
        key: Of the run.
        settings: Every override of the task's recipe, for people; the key decides.
        updates: Of the student.
        units: Forwards that one sample cost per student update.
        fewstep: Version of the package.
        train_seconds, measure_seconds: By the clock; None where nobody looked at it.
        peak_mib: Largest resident memory of the process that made it.
        diverged: What the training said when a loss was no number any more.
        measured: By network calls of a picture and name of the figure, one value for each noise seed.
    """

    key: str
    settings: tuple[str, ...]
    updates: int
    units: float
    fewstep: str
    train_seconds: float | None
    measure_seconds: float | None
    peak_mib: float | None
    diverged: str | None
    measured: Mapping[int, Mapping[str, tuple[float, ...]]]

    def serves(self, run: Run) -> bool:
        """Whether all is there that a run is made for."""
        return self.diverged is not None or all(steps in self.measured for steps in run.steps)

    def figure(self, name: str, steps: int) -> float | None:
        """The mean over noise seeds, or None where it was not measured."""
        values = self.measured.get(steps, {}).get(name)
        return None if values is None else sum(values) / len(values)

    def write(self, results: Path) -> None:
        results.mkdir(parents=True, exist_ok=True)
        write_json(results / f"{self.key}.json", asdict(self))


def read_outcomes(results: Path) -> dict[str, Outcome]:
    """Every outcome of a folder, by key.

    Raises:
        CheckpointError: A file is damaged.
    """
    cure = "Delete it, and what it says is measured again"
    found = [load_json(path, Outcome, cure=cure) for path in sorted(results.glob("*.json"))]
    return {outcome.key: outcome for outcome in found}
