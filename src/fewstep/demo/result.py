"""What a demo measured: as JSON, as a file that makes the next demo quick, and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from rich.table import Table

from fewstep.demo.protocol import METRICS, Row, mean_row
from fewstep.files import UnreadableError, read_json, write_json

_T = TypeVar("_T")

TITLES = {
    "real": "Real data",
    "teacher_50": "Teacher, 50 steps",
    "teacher_4": "Teacher, 4 steps",
    "student_4": "Student, 4 steps",
}


@dataclass(frozen=True)
class SeedResult:
    """One training seed.

    Attributes:
        key: Names everything that decided the result; another key means it has to be made anew.
        seed: The training seed.
        run: Name of the run's folder inside the demo's.
        train_seconds: Time of the distillation, whenever it was done.
        row: The student's row.
    """

    key: str
    seed: int
    run: str
    train_seconds: float
    row: Row

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path, *, key: str) -> Self | None:
        """The stored result, unless there is none or it was made of something else."""
        stored = _read(path, cls)
        return stored if stored is not None and stored.key == key else None


@dataclass(frozen=True)
class DemoResult:
    """A whole demo.

    Attributes:
        shipped: ``real``, ``teacher_50`` and ``teacher_4``.
        students: One per training seed.
        threads: Threads of the arithmetic.
        total_seconds: Time of this call.
        peak_mib: Largest resident memory of this process.
        cached: Whether everything was there already.
    """

    shipped: Mapping[str, Row]
    students: Sequence[SeedResult]
    threads: int
    total_seconds: float
    peak_mib: float
    cached: bool

    @property
    def rows(self) -> dict[str, Row]:
        """Every row; the student's is the mean over training seeds."""
        return {**self.shipped, "student_4": mean_row([student.row for student in self.students])}

    def to_json(self) -> dict[str, Any]:
        """The object that ``fewstep demo --json`` prints."""
        per_seed = [
            {"seed": student.seed, "train_seconds": student.train_seconds, **student.row.to_json()}
            for student in self.students
        ]
        return {
            **{name: row.to_json() for name, row in self.rows.items()},
            "student_4_per_seed": per_seed,
            "seeds": [student.seed for student in self.students],
            "threads": self.threads,
            "train_seconds": round(sum(student.train_seconds for student in self.students), 2),
            "total_seconds": round(self.total_seconds, 2),
            "peak_mib": round(self.peak_mib, 1),
            "cached": self.cached,
        }

    def write(self, path: Path) -> None:
        """Write what ``--json`` prints, and the keys by which the next demo knows it."""
        write_json(path, {**self.to_json(), "keys": [student.key for student in self.students]})

    def table(self) -> Table:
        """The rows as the terminal shows them, turned so that they fit eighty columns."""
        rows = self.rows
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column("")
        for name in rows:
            table.add_column(TITLES[name], justify="right", style="bold" if name.startswith("student") else None)
        for figure in METRICS:
            label = _LABELS.get(figure, figure)
            table.add_row(label, *(_format(figure, getattr(row, figure)) for row in rows.values()))
        table.add_row("guidance", *("-" if row.guidance is None else f"{row.guidance:g}" for row in rows.values()))
        return table


def _format(figure: str, value: float) -> str:
    """A figure with as many digits as three noise seeds can tell apart."""
    return f"{value:.1f}" if figure == "kd" else f"{value:.3f}" if figure == "accuracy" else f"{value:.2f}"


_LABELS = {"fd": "FD", "kd": "KD", "tv": "colour TV"}
LEGEND = "FD, KD and colour TV are best when small, diversity at 1, the others when large."


def keys_of(path: Path) -> list[str] | None:
    """The keys of the seeds that a finished demo's result.json is about."""
    stored = _read(path, _Keys)
    return None if stored is None else stored.keys


@dataclass(frozen=True)
class _Keys:
    """What the next demo asks of a result.json."""

    keys: list[str]


def _read(path: Path, shape: type[_T]) -> _T | None:
    """What a file holds; one that is missing, cut off or of another shape is as good as none: it is made again."""
    try:
        return read_json(path, shape)
    except UnreadableError:
        return None
