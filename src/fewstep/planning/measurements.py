"""What ``python -m benchmarks.gpu`` measured on a card: the file that it writes, and what a plan takes from it."""

import math
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fewstep.bounds import Batch, DtypeName, Minutes, Name, Pixels, Place
from fewstep.config.run_config import RunConfig
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import load_json
from fewstep.planning.search import ASSUMED, Reserve
from fewstep.roles.compilation import Compilation
from fewstep.section import Section

_FORMAT = 1
_CURE = "Run python -m benchmarks.gpu again, or name another file"
_CARDS = Path(__file__).with_name("cards")

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
        height, width: Of the pictures, in pixels.
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
    height: Pixels
    width: Pixels
    trains: Literal["full", "lora"]
    checkpointing: bool | Literal["selective"]
    microbatch: Batch
    batch: Batch
    compute: DtypeName
    compiled: Compilation
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


class CaseRow(Section):
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

    format: int = _FORMAT
    fewstep: Name
    torch: Name
    toolkit: Name | None = Field(description="version of CUDA that torch was built for")
    minutes: Minutes
    tiny: bool
    card: Card
    rows: tuple[CaseRow, ...] = ()
    ratios: dict[str, _Positive] = Field(default_factory=dict)

    def nearest(self, config: RunConfig, *, trains: str, microbatch: int) -> tuple[str, Update]:
        """The measured case that is most like a run, and its updates: the same model before the same settings.

        Raises:
            ConfigError: Nothing was measured in the run's precision.
        """
        compute = config.precision.compute
        found = [(row.case, row.update) for row in self.rows if row.update is not None]
        found = [(case, update) for case, update in found if update.compute == compute]
        if not found:
            raise ConfigError(
                f"On {self.card.name} no student update was measured in {compute}, which is precision.compute; "
                "measure it (python -m benchmarks.gpu), or plan without --measured."
            )
        backbone, memory = config.backbone, config.memory
        for name, wanted in {
            "model": backbone.origin,
            "spread": True,
            "height": backbone.height,
            "width": backbone.width,
            "trains": trains,
            "checkpointing": memory.recomputation,
            "compiled": memory.compiled,
        }.items():
            found = [each for each in found if getattr(each[1], name) == wanted] or found
        return min(found, key=lambda each: abs(math.log(each[1].microbatch / microbatch)))

    def reserve(self, *, trains: str) -> Reserve:
        """What the card needed beside the predicted peak at most; what is assumed where no case tells."""
        updates = [row.update for row in self.rows if row.update is not None]
        updates = [update for update in updates if update.trains == trains] or updates
        factors = [
            one.reserved_bytes / one.predicted_bytes for one in updates if one.reserved_bytes and one.predicted_bytes
        ]
        outside = [one.outside_bytes for one in updates if one.outside_bytes is not None]
        return Reserve(max(factors), float(max(outside))) if factors and outside else ASSUMED


def load_measurements(asked: str, *, cards: Path = _CARDS) -> Measurements:
    """A file that ``benchmarks.gpu`` wrote, or the shipped one of a card.

    Args:
        asked: A path, or a card's name.
        cards: Folder of the shipped files.

    Raises:
        ConfigError: It is neither, or tells of shrunk networks.
        CheckpointError: The file is damaged, is no such file, or was written by a newer version.
    """
    if os.path.exists(asked):
        found = _read(Path(asked))
        if found.tiny or found.card.memory_bytes is None:
            raise ConfigError(
                f"{shown(asked, quoted=False)} tells of shrunk networks on {found.card.name}, which says nothing about "
                "a GPU; run python -m benchmarks.gpu on one without --tiny."
            )
        return found
    shipped = _shipped(cards)
    if asked.casefold() not in shipped:
        names = ", ".join(sorted(one.card.name for one in shipped.values())) or "none yet"
        raise ConfigError(
            f"--measured is {shown(asked)}, which is neither a file nor a card that was measured for this package "
            f"({names}); python -m benchmarks.gpu writes such a file."
        )
    return shipped[asked.casefold()]


def _shipped(cards: Path) -> Mapping[str, Measurements]:
    return {found.card.name.casefold(): found for found in map(_read, sorted(cards.glob("*.json")))}


def _read(path: Path) -> Measurements:
    version = load_json(path, dict[str, Any], cure=_CURE).get("format")
    if type(version) is not int:
        raise CheckpointError(f"{path} tells no format of measurements. {_CURE}.")
    if version > _FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, but this fewstep reads formats up to {_FORMAT}; install a newer fewstep."
        )
    return load_json(path, Measurements, cure=_CURE)


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
