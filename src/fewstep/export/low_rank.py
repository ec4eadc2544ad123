"""What training changed of all weights, cut into low-rank factors layer by layer.

    W_student - W_teacher = U S V^T,   B = U_r sqrt(S_r),   A = sqrt(S_r) V_r^T

The r largest singular values give the nearest matrix of rank r, and equal halves of them keep both factors within the
range of half precision. Singular values alone say how near: the square of what is lost is the sum of the squares of the
others.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn

from fewstep.errors import ConfigError
from fewstep.export.formats import WRITTEN, Cut, FixedRank, LargestError, LargestSize
from fewstep.runs.checkpoint import StoredTensors

_HEADER_BYTES = 400
"""What a safetensors file says of the two factors of a layer, at most."""


@dataclass(frozen=True)
class CutLayer:
    """One layer's factors.

    Attributes:
        rank: 0 where the layer stays the teacher's.
        change: Norm of what training changed.
        error: Norm of what the written factors lack of it, as a share of it.
    """

    name: str
    rank: int
    change: float
    error: float


@dataclass(frozen=True)
class Extraction:
    """Low-rank factors of a change, and what they leave out.

    Attributes:
        factors: ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``, as they are written.
        layers: Those that may take factors, the worst first.
        others: Norm of the change of every other weight, such as norms and biases, which stay the teacher's.
    """

    factors: dict[str, Tensor]
    layers: tuple[CutLayer, ...]
    others: float

    @property
    def error(self) -> float:
        """What is lost of the whole change, as a share of its norm."""
        lost = math.hypot(self.others, *(layer.error * layer.change for layer in self.layers))
        return lost / math.hypot(self.others, *(layer.change for layer in self.layers))

    def table(self) -> Table:
        """The layers for a terminal."""
        table = Table("layer", "rank", "change", "error", box=None)
        for layer in self.layers:
            table.add_row(layer.name, str(layer.rank), f"{layer.change:.4g}", f"{layer.error:.2%}")
        return table

    def __str__(self) -> str:
        kept = [layer for layer in self.layers if layer.rank]
        return (
            f"The factors of {len(kept)} of {len(self.layers)} layers lack {self.error:.2%} of what training changed; "
            f"the other weights, which have no factors, hold {self.others:.4g} of its norm of {self._norm:.4g}."
        )

    @property
    def _norm(self) -> float:
        return math.hypot(self.others, *(layer.change for layer in self.layers))


@torch.no_grad()
def extract(
    network: nn.Module, student: StoredTensors, layers: Mapping[str, Tensor], cut: Cut, *, dtype: str, device: str
) -> Extraction:
    """Cut the difference between a student and its teacher, and leave ``network`` as the student.

    One part of the stored student is in memory at a time, beside the network and the factors.

    Args:
        network: The teacher; overwritten by the student, weight by weight.
        student: Every weight of it.
        layers: The weights of ``network`` that may take factors, by layer.
        cut: How the ranks are chosen.
        dtype: Of the written factors; the errors are theirs.
        device: Where the singular values are computed.

    Raises:
        ConfigError: Nothing was changed, or no factor is as small as asked.
    """
    ranks = _ranks_for(network, student, layers, cut, dtype, device) if isinstance(cut, LargestSize) else {}
    factors: dict[str, Tensor] = {}
    found: list[CutLayer] = []
    others = 0.0
    for name, value, place in _both(network, student):
        change = (value - place).to(device, torch.float32)
        place.copy_(value)
        layer = name.removesuffix(".weight")
        norm = float(torch.linalg.vector_norm(change))
        if layer not in layers:
            others = math.hypot(others, norm)
        elif norm > 0:
            left, values, right = torch.linalg.svd(change.flatten(1), full_matrices=False)
            rank = ranks.get(layer, 0) if isinstance(cut, LargestSize) else _rank(cut, values)
            found.append(_cut(layer, change, (left, values, right), rank, WRITTEN[dtype], factors))
    if not factors:
        raise ConfigError("Training changed no layer that takes low-rank factors, so there are none to write.")
    return Extraction(factors, tuple(sorted(found, key=lambda one: (-one.error, one.name))), others)


def _both(network: nn.Module, student: StoredTensors) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, student's value and place in the network of every weight, a part of the student at a time."""
    places = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for part in student.parts():
        for name, value in part.items():
            yield name, value, places[name]


def _cut(
    layer: str,
    change: Tensor,
    parts: tuple[Tensor, Tensor, Tensor],
    rank: int,
    dtype: torch.dtype,
    factors: dict[str, Tensor],
) -> CutLayer:
    left, values, right = parts
    half = values[:rank].sqrt()
    up, down = (left[:, :rank] * half).to(dtype), (half[:, None] * right[:rank]).to(dtype)
    lost = torch.linalg.vector_norm(change.flatten(1) - up.float() @ down.float())
    if rank:
        kernel = change.shape[2:]
        factors[f"{layer}.lora_A.weight"] = down.reshape(rank, *change.shape[1:]).contiguous().cpu()
        factors[f"{layer}.lora_B.weight"] = up.reshape(len(change), rank, *[1] * len(kernel)).contiguous().cpu()
    norm = torch.linalg.vector_norm(change)
    return CutLayer(layer, rank, float(norm), float(lost / norm))


def _rank(cut: FixedRank | LargestError, values: Tensor) -> int:
    match cut:
        case FixedRank(rank):
            return min(rank, len(values))
        case LargestError(share):
            squares = values.double().square()
            kept = squares.cumsum(0)
            enough = kept >= (1 - share**2) * kept[-1]
            return int(enough.int().argmax()) + 1


def _ranks_for(
    network: nn.Module, student: StoredTensors, layers: Mapping[str, Tensor], cut: LargestSize, dtype: str, device: str
) -> dict[str, int]:
    """The ranks with the smallest error of the whole whose file is no larger than asked.

    A singular value is worth its square and costs the two vectors beside it; the best ones for their price are taken.
    """
    worth: list[tuple[float, int, str]] = []
    for name, value, place in _both(network, student):
        layer = name.removesuffix(".weight")
        if layer not in layers:
            continue
        change = (value - place).to(device, torch.float32).flatten(1)
        price = sum(change.shape) * WRITTEN[dtype].itemsize
        worth += [(float(one) ** 2 / price, price, layer) for one in torch.linalg.svdvals(change) if one > 0]
    left = cut.mib * 2**20 - 2**12
    ranks: dict[str, int] = {}
    for _, price, layer in sorted(worth, reverse=True):
        whole = price if layer in ranks else price + _HEADER_BYTES
        if whole <= left:
            left -= whole
            ranks[layer] = ranks.get(layer, 0) + 1
    if worth and not ranks:
        least = min(price for _, price, _ in worth)
        raise ConfigError(f"size is {cut.mib:g} MiB, which holds no factor: the smallest takes {least} bytes.")
    return ranks
