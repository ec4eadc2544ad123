"""How many bytes of each role's weights one process holds, whole and cut up."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from fewstep.distributed.sharding import SMALLEST_GROUP
from fewstep.roles.lora import is_factor
from fewstep.roles.moments import is_packed, packed_bytes


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
    def of(cls, network: nn.Module, block_classes: Collection[str], shards: int) -> "Spread":
        """Sizes of a network whose parameters are as they are while it computes.

        Args:
            network: On the meta device.
            block_classes: The adapter's, which get groups of their own when they are large enough.
            shards: Processes that share one copy.
        """
        modules = [module for module in network.modules() if type(module).__name__ in block_classes]
        blocks = {id(parameter): parameter for module in modules for parameter in module.parameters()}
        groups = [group for module in modules if _count(group := list(module.parameters())) >= SMALLEST_GROUP]
        grouped = {id(parameter) for group in groups for parameter in group}
        root = [parameter for parameter in network.parameters() if id(parameter) not in grouped]
        largest = max(groups, key=_bytes, default=[])
        parameters = list(network.parameters())
        return cls(
            trained=sum(_part(parameter, shards) for parameter in parameters if parameter.requires_grad),
            frozen_bytes=sum(_part(p, shards) * p.element_size() for p in parameters if not p.requires_grad),
            frozen_block_bytes=sum(_part(p, shards) * p.element_size() for p in blocks.values() if not p.requires_grad),
            buffer_bytes=_bytes(network.buffers()),
            root=_bytes(root),
            block=_bytes(largest),
            root_trained=_count(parameter for parameter in root if parameter.requires_grad),
            block_trained=_count(parameter for parameter in largest if parameter.requires_grad),
            groups=len(groups) + 1,
        )

    @property
    def stays_whole(self) -> bool:
        """Whether nothing frees the gathered weights between two calls."""
        return self.block == 0


def trained_part(network: nn.Module, shards: int, *, only: str | None) -> float:
    """Trained parameters at each process; of one role's factors when it has some."""
    return sum(
        _part(parameter, shards)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (only is None or is_factor(name, only))
    )


def moment_bytes(network: nn.Module, shards: int, *, only: str | None, packed: bool) -> float:
    """Of AdamW's two moments at each process; of one role's factors when it has some.

    Args:
        packed: Whether they are held in 8 bits where they can be.
    """
    trained = [
        p for name, p in network.named_parameters() if p.requires_grad and (only is None or is_factor(name, only))
    ]
    return 2.0 * sum(
        packed_bytes(-(-len(p) // shards), p[:1].numel()) if packed and is_packed(p.shape) else 4 * _part(p, shards)
        for p in trained
    )


def _part(parameter: Tensor, shards: int) -> int:
    """Elements of a parameter at each process: rows are dealt out evenly, and the last part is padded."""
    rows = parameter.shape[0] if parameter.dim() else 1
    return -(-rows // shards) * (parameter.numel() // max(1, rows))


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
