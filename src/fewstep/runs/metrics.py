"""metrics.jsonl as numbers: its last lines, read from the end, or all of them."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fewstep.errors import CheckpointError
from fewstep.files import UnreadableError, parse_json, whole_lines

Curve = list[tuple[int, float]]
"""One figure, as (step, value) in order."""
_Point = TypeVar("_Point")

END_BYTES = 8192
"""What is read of a file's end: a line has up to 700 bytes, and one of a measurement with many figures more."""


@dataclass(frozen=True)
class Line:
    """Figures of one step, by name; a step may have several lines."""

    step: int
    figures: dict[str, float]


def last_lines(path: Path) -> list[Line]:
    """The last lines of a file of any size, the oldest first; one that is still being written is left out.

    Raises:
        UnreadableError: It is no file, or one of these lines is damaged.
    """
    try:
        if not path.exists():
            return []
        if not path.is_file():
            raise UnreadableError("it is not a file")
        with path.open("rb", buffering=0) as file:
            start = max(0, os.fstat(file.fileno()).st_size - END_BYTES)
            file.seek(start)
            texts = file.read(END_BYTES).split(b"\n")
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror or error}") from error
    found = [_line(text) for text in texts[1 if start else 0 : -1] if text]
    if start and not found:
        raise UnreadableError(f"its last {END_BYTES} bytes hold no whole line")
    return found


def all_lines(path: Path) -> Iterator[Line]:
    """Every line, in the order of the file; a last one that was cut off is left out.

    Raises:
        CheckpointError: It is no file, or a line is damaged.
    """
    return (line for _, line in stored_lines(path))


def stored_lines(path: Path) -> Iterator[tuple[bytes, Line]]:
    """:func:`all_lines`, each with its text; a file that is missing has none."""
    if not path.exists():
        return
    try:
        for number, text in whole_lines(path):
            try:
                yield text, _line(text)
            except UnreadableError as error:
                raise UnreadableError(f"its line {number} is damaged: {error}") from error
    except UnreadableError as error:
        raise CheckpointError(
            f"{path} cannot be used: {error}. Remove that line, or move the file away: the training does not need it."
        ) from error


def last_figures(lines: Iterable[Line]) -> dict[str, float]:
    """The last value of every figure."""
    return {name: value for line in lines for name, value in line.figures.items()}


def curves(lines: Iterable[Line]) -> dict[str, Curve]:
    """Every figure over the steps; what is no finite number is left out."""
    found: dict[str, Curve] = {}
    for line in lines:
        for name, value in line.figures.items():
            if math.isfinite(value):
                found.setdefault(name, []).append((line.step, value))
    return found


def thinned(points: Sequence[_Point], most: int) -> Sequence[_Point]:
    """About as many points of a curve as a chart shows, the last one among them."""
    step = -(-len(points) // most)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _line(text: bytes) -> Line:
    told = parse_json(text, dict[str, Any])
    step = told.pop("step", None)
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise UnreadableError("it names no step")
    return Line(step, {name: float(value) for name, value in told.items() if type(value) in (int, float)})
