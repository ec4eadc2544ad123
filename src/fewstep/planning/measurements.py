"""What ``python -m benchmarks.gpu`` measured on a card: the file that it writes."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fewstep.bounds import Batch, DtypeName, Minutes, Name, Place
from fewstep.section import Section

FORMAT = 1

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Bytes = Annotated[int, Field(ge=0)]


class Card(Section):
    """The device that was measured.

    Attributes:
        memory_bytes: All of it; None of a CPU.
        capability: CUDA's, such as 9.0.
        peak_teraflops: By precision, dense, as the maker states it, 1e12 operations a second; empty for a card that
            is not in :data:`PEAKS`.
    """

    name: Name
    memory_bytes: _Bytes | None
    capability: Name | None
    driver: Name | None
    peak_teraflops: dict[DtypeName, _Positive]


class Update(Section):
    """Student updates of one checkpoint under some settings, as the trainer makes them.

    Attributes:
        model: The checkpoint whose configuration the random network has.
        microbatch: Samples in one call; ``batch`` are those of an update.
        spread: Whether FSDP2 held the weights, as it does in training.
        seconds: Of each timed update.
        units: Forwards per sample and update, by the drawn schedules: backward 2, recomputation 1.
        teraflops: Of the networks' work, by these units, 1e12 operations a second.
        utilisation: ``teraflops`` over the card's peak; None where that is not known.
        predicted_bytes: Peak of tensors by the planner; None where it predicts none.
        peak_bytes: Of tensors, measured.
        reserved_bytes: Peak of what torch's allocator held; None on a CPU.
        outside_bytes: In use on the card outside of the allocator: CUDA's context, libraries, other programs.
    """

    model: Place
    trains: Literal["full", "lora"]
    checkpointing: bool | Literal["selective"]
    microbatch: Batch
    batch: Batch
    compute: DtypeName
    compiled: bool
    spread: bool
    seconds: Annotated[tuple[_Positive, ...], Field(min_length=1)]
    units: _Positive
    teraflop_per_forward: _Positive
    teraflops: _Positive
    utilisation: _Positive | None
    predicted_bytes: _Bytes | None
    peak_bytes: _Bytes
    reserved_bytes: _Bytes | None
    outside_bytes: _Bytes | None


class Row(Section):
    """One case, measured or not.

    Attributes:
        not_run: Why it was not.
        update: Of a case that trains.
        figures: Of any other case, by name.
    """

    case: Name
    took_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    not_run: str | None = None
    update: Update | None = None
    figures: dict[str, Any] = Field(default_factory=dict)


class Measurements(Section):
    """A whole file.

    Attributes:
        minutes: That the cases had together.
        tiny: Whether the networks were shrunk, which shows that the program works and says nothing about a card.
        ratios: Of two cases of this run each, by what is compared.
    """

    format: int = FORMAT
    fewstep: Name
    torch: Name
    toolkit: Name | None = Field(description="version of CUDA that torch was built for")
    minutes: Minutes
    tiny: bool
    card: Card
    rows: tuple[Row, ...] = ()
    ratios: dict[str, _Positive] = Field(default_factory=dict)


# dense matrix products as the makers state them; fp32 without TF32
PEAKS: dict[str, dict[DtypeName, float]] = {
    "B200": {"bf16": 2250.0, "fp32": 75.0},
    "H200": {"bf16": 989.0, "fp32": 67.0},
    "H100 PCIe": {"bf16": 756.0, "fp32": 51.0},
    "H100 NVL": {"bf16": 835.0, "fp32": 60.0},
    "H100": {"bf16": 989.0, "fp32": 67.0},
    "A100": {"bf16": 312.0, "fp32": 19.5},
    "L40S": {"bf16": 362.0, "fp32": 91.6},
    "L4": {"bf16": 121.0, "fp32": 30.3},
    "A10G": {"bf16": 70.0, "fp32": 31.2},
    "A10": {"bf16": 125.0, "fp32": 31.2},
    "RTX 6000 Ada": {"bf16": 364.0, "fp32": 91.1},
    "RTX A6000": {"bf16": 155.0, "fp32": 38.7},
    "RTX 4090": {"bf16": 165.0, "fp32": 82.6},
    "RTX 3090": {"bf16": 71.0, "fp32": 35.6},
}
"""By a part of the card's name, the longer ones first where one begins another."""


def stated_peak(name: str) -> dict[DtypeName, float]:
    """What the maker of a card states; empty for one that is not known."""
    words = f" {name} ".replace("-", " ")
    return next((peaks for part, peaks in PEAKS.items() if f" {part} " in words), {})
