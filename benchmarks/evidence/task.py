"""What is distilled and how its student is judged, as a value: another teacher is another one of these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.demo.protocol import METRICS, Protocol, Row
from fewstep.demo.result import TITLES
from fewstep.demo.shipped_rows import read_rows
from fewstep.embedded import assets
from fewstep.sampling.model_spec import ModelSpec

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Task:
    """A teacher with the figures of its student.

    Attributes:
        recipe: What every method is an override of.
        steps: Network calls of a picture at which methods are compared; the recipe's own grid.
        figures: Decimals that are shown of each figure, by name.
        distance: The figure that falls when pictures are good and as varied as they should be.
        accuracy: The figure that rises with guidance.
        recall: The figure that guidance costs.
        measure: The figures of an exported student at some steps, one mapping for each noise seed; the last argument is
            a folder for its pictures.
        identity: All that decides them beside student and steps, as plain data.
        references: What students are seen against: figures by title.
    """

    recipe: str
    steps: int
    figures: Mapping[str, int]
    distance: str
    accuracy: str
    recall: str
    measure: Callable[[Path, int, Path], Sequence[Figures]]
    identity: Callable[[], Mapping[str, Any]]
    references: Callable[[], Mapping[str, Figures]]


def digits(protocol: Protocol | None = None) -> Task:
    """The embedded teacher under the demo's protocol."""
    protocol = protocol or Protocol(read_rows().real_diversity)
    return Task(
        recipe="digits",
        steps=4,
        figures={**dict.fromkeys(METRICS, 2), "kd": 0, "accuracy": 3, "recall": 3},
        distance="fd",
        accuracy="accuracy",
        recall="recall",
        measure=partial(_measure_digits, protocol),
        identity=partial(_identity_of_digits, protocol),
        references=_shipped,
    )


def _measure_digits(protocol: Protocol, student: Path, steps: int, work: Path) -> list[Figures]:
    rows = protocol.measure(ModelSpec(model=str(student), steps=steps, guidance_scale=1.0), work)
    return [_figures(row) for row in rows]


def _identity_of_digits(protocol: Protocol) -> Mapping[str, Any]:
    assets_hash = assets.sha256_of(assets.assets_folder(assets.DIGITS) / assets.MANIFEST_FILE)
    return {"assets": assets_hash, "protocol": asdict(protocol)}


def _shipped() -> Mapping[str, Figures]:
    return {TITLES[name]: _figures(measured.row) for name, measured in read_rows().rows.items()}


def _figures(row: Row) -> Figures:
    return {name: getattr(row, name) for name in METRICS}


TASKS: Mapping[str, Callable[[], Task]] = {"digits": digits}
