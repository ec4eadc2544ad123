"""How many bytes of each role's weights one process holds, whole and cut up."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import nn

from fewstep.roles.lora import is_factor
from fewstep.roles.moments import is_packed, packed_bytes

_FP32 = 4


@dataclass(frozen=True)
class Weight:
    """A parameter without its values.

    Attributes:
        element_size: Bytes of one number.
        trained: Whether it has a gradient.
        role: Whose low-rank factor it is; None of any other parameter.
        in_block: Whether it belongs to a block.
    """

    shape: tuple[int, ...]
    element_size: int
    trained: bool
    role: str | None
    in_block: bool

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Of its first axis, along which it is cut up."""
        return self.shape[0] if self.shape else 1

    @property
    def columns(self) -> int:
        """Numbers in a row."""
        return self.count // max(1, self.rows)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * self.element_size

    def part(self, shards: int) -> int:
        """Numbers of it at each process: rows are dealt out evenly, and the last part is padded."""
        return -(-self.rows // shards) * self.columns

    def moment(self, shards: int, *, packed: bool) -> int:
        """Bytes of one of AdamW's moments at each process, held in 8 bits where ``packed`` and it can be."""
        if packed and is_packed(self.shape):
            return packed_bytes(-(-self.rows // shards), self.columns)
        return _FP32 * self.part(shards)


@dataclass(frozen=True)
class WeightTable:
    """What a plan reads of a network: its weights as they are while it computes.

    Attributes:
        groups: Places of the weights that are gathered together, block by block; the others are the root's.
        buffer_bytes: Of what is not cut up.
    """

    weights: tuple[Weight, ...]
    groups: tuple[tuple[int, ...], ...]
    buffer_bytes: int

    @classmethod
    def of(cls, network: nn.Module, block_classes: Collection[str], *, roles: Iterable[str] = ()) -> "WeightTable":
        """Read a network.

        Args:
            network: On the meta device.
            block_classes: The adapter's, which get groups of their own when they are large enough.
            roles: That have low-rank factors in it.
        """
        from fewstep.distributed.sharding import SMALLEST_GROUP  # FSDP2 and sympy, half a second

        roles = tuple(roles)
        modules = [module for module in network.modules() if type(module).__name__ in block_classes]
        blocks = [list(module.parameters()) for module in modules]
        in_blocks = {id(parameter) for block in blocks for parameter in block}
        places = {id(parameter): place for place, parameter in enumerate(network.parameters())}
        groups = [block for block in blocks if sum(parameter.numel() for parameter in block) >= SMALLEST_GROUP]
        return cls(
            tuple(
                Weight(
                    shape=tuple(parameter.shape),
                    element_size=parameter.element_size(),
                    trained=parameter.requires_grad,
                    role=next((role for role in roles if is_factor(name, role)), None),
                    in_block=id(parameter) in in_blocks,
                )
                for name, parameter in network.named_parameters()
            ),
            tuple(tuple(places[id(parameter)] for parameter in group) for group in groups),
            sum(buffer.numel() * buffer.element_size() for buffer in network.buffers()),
        )

    @property
    def count(self) -> int:
        """Parameters."""
        return sum(weight.count for weight in self.weights)

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(weight.size for weight in self.weights)

    def trained_part(self, shards: int, *, only: str | None) -> float:
        """Trained parameters at each process; of one role's factors when it has some."""
        return sum(weight.part(shards) for weight in self._trained(only))

    def moment_bytes(self, shards: int, *, only: str | None, packed: bool) -> float:
        """Of AdamW's two moments at each process; of one role's factors when it has some.

        Args:
            packed: Whether they are held in 8 bits where they can be.
        """
        return 2.0 * sum(weight.moment(shards, packed=packed) for weight in self._trained(only))

    def _trained(self, only: str | None) -> list[Weight]:
        return [weight for weight in self.weights if weight.trained and only in (None, weight.role)]


@dataclass(frozen=True)
class Spread:
    """A network cut up over the processes that share one copy.

    Attributes:
        trained: Parameters with a gradient at this process, padding included.
        frozen_bytes: Of the parameters without one at this process.
        frozen_block_bytes: Those of them that belong to blocks.
        buffer_bytes: Of what is not cut up.
        root: Bytes of the weights outside of any group when they are gathered for computing.
        block: The same of the largest group; 0 when the network is too small for groups.
        root_trained, block_trained: How many parameters of those have a gradient.
        groups: That are gathered one by one, the root included.
    """

    trained: float
    frozen_bytes: float
    frozen_block_bytes: float
    buffer_bytes: float
    root: float
    block: float
    root_trained: int
    block_trained: int
    groups: int

    @classmethod
    def of(cls, table: WeightTable, shards: int) -> "Spread":
        """Sizes of a network.

        Args:
            table: Of its weights.
            shards: Processes that share one copy.
        """
        groups = [[table.weights[place] for place in group] for group in table.groups]
        grouped = {place for group in table.groups for place in group}
        root = [weight for place, weight in enumerate(table.weights) if place not in grouped]
        largest = max(groups, key=_bytes, default=[])
        frozen = [weight for weight in table.weights if not weight.trained]
        return cls(
            trained=sum(weight.part(shards) for weight in table.weights if weight.trained),
            frozen_bytes=sum(weight.part(shards) * weight.element_size for weight in frozen),
            frozen_block_bytes=sum(weight.part(shards) * weight.element_size for weight in frozen if weight.in_block),
            buffer_bytes=table.buffer_bytes,
            root=_bytes(root),
            block=_bytes(largest),
            root_trained=sum(weight.count for weight in root if weight.trained),
            block_trained=sum(weight.count for weight in largest if weight.trained),
            groups=len(groups) + 1,
        )

    @property
    def stays_whole(self) -> bool:
        """Whether nothing frees the gathered weights between two calls."""
        return self.block == 0


def _bytes(weights: Iterable[Weight]) -> int:
    return sum(weight.size for weight in weights)
