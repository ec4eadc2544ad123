"""Networks spread over the processes: FSDP2 by the backbone's blocks, and filling them from one whole copy.

The policy never casts what a network is called with (``cast_forward_inputs``): times of 0..1000, guidance and
position ids do not survive bfloat16. The adapter casts latents and text by hand.

Every group of blocks, the root included, is freed after its forward. A network too small for groups stays whole
between forwards, because gathering it would take longer than using it; a write to its weights is lost unless
:func:`settle` frees it first.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fewstep.distributed.world import World
from fewstep.errors import ConfigError

# parameters below which a block gets no group of its own: the exchange would cost more than its memory is worth
SMALLEST_GROUP = 1_000_000
_FIRST: WeakKeyDictionary[nn.Module, tuple[FSDPModule, ...]] = WeakKeyDictionary()
"""By network: what its calls need first, where a policy asks for it."""


def build_mesh(
    world: World, *, shard: int | None = None, replicate: int | None = None, alone: bool = True
) -> DeviceMesh | None:
    """Arrange the processes: each group of ``shard`` holds one copy of the weights, ``replicate`` groups are equal.

    Args:
        world: The processes of the run.
        shard: Processes that share one copy; None takes what ``replicate`` leaves.
        replicate: Copies; None takes what ``shard`` leaves, or one when both are None.
        alone: Whether one process by itself gets a mesh too. It gains something only where weights are cast or
            offloaded; otherwise FSDP2 would copy every weight it uses.

    Returns:
        A mesh of one axis, or of two with copies; None for networks that stay whole: on a device that cannot shard
        (MPS), in a process outside of any group, and where there is nothing to spread.

    Raises:
        ConfigError: ``shard`` times ``replicate`` is not the number of processes.
    """
    if world.device.type == "mps" or not dist.is_initialized():
        return None
    per_copy = shard if shard is not None else max(1, world.size // (replicate or 1))
    copies = replicate if replicate is not None else max(1, world.size // per_copy)
    if per_copy * copies != world.size:
        stated = {"parallel.shard": shard, "parallel.replicate": replicate}
        said = " and ".join(f"{name} is {value}" for name, value in stated.items() if value is not None)
        raise ConfigError(
            f"{said}, but {world.size} processes were started; shard times replicate has to be their number."
        )
    if world.size == 1 and not alone:
        return None
    kind = world.device.type
    if copies == 1:
        return init_device_mesh(kind, (per_copy,), mesh_dim_names=("shard",))
    return init_device_mesh(kind, (copies, per_copy), mesh_dim_names=("replicate", "shard"))


@dataclass(frozen=True)
class Policy:
    """How one network computes while it is spread.

    Attributes:
        compute: Precision to which trained float32 weights are cast for a forward; None leaves weights as they are,
            for a frozen network held in its own precision and for one with LoRA factors.
        offload: Keep the spread weights (and what the optimiser holds of them) in the memory of the CPU.
        prefetch: Blocks that are gathered ahead of the one that computes; None leaves it to FSDP2.
    """

    compute: torch.dtype | None = None
    offload: bool = False
    prefetch: int | None = None


def shard(network: nn.Module, block_classes: Collection[str], mesh: DeviceMesh, policy: Policy) -> nn.Module:
    """Spread a network in place, block by block and then the rest; small blocks belong to the rest."""
    precision = MixedPrecisionPolicy(
        param_dtype=policy.compute,
        reduce_dtype=None if policy.compute is None else torch.float32,
        cast_forward_inputs=False,
    )
    offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if policy.offload else OffloadPolicy()
    blocks = [
        module
        for module in network.modules()
        if type(module).__name__ in block_classes and _num_parameters(module) >= SMALLEST_GROUP
    ]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision, offload_policy=offload, reshard_after_forward=True)
    # by default the root would stay whole after a forward, however large it is
    root = fully_shard(
        network, mesh=mesh, mp_policy=precision, offload_policy=offload, reshard_after_forward=bool(blocks)
    )
    if policy.prefetch is not None:
        groups = [block for block in blocks if isinstance(block, FSDPModule)]
        _prefetch_in_order(root, groups, ahead=policy.prefetch)
    return network


def settle(network: nn.Module) -> None:
    """Free what the last forward left whole, so that the next one sees what is written to the weights now."""
    if isinstance(network, FSDPModule):
        network.reshard()


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def skeleton(network: nn.Module) -> nn.Module:
    """A copy whose parameters are on the meta device; its buffers, which may be large, are the original's own."""
    kept: dict[int, Tensor] = {id(buffer): buffer for buffer in network.buffers()}
    for parameter in network.parameters():
        empty = torch.empty_like(parameter, device="meta")
        kept[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    return copy.deepcopy(network, memo=dict(kept))


def allocate(network: nn.Module, *, device: torch.device, offload: bool) -> None:
    """Give a skeleton memory: buffers on ``device``, parameters there or, offloaded, on the CPU; in place."""
    buffers = {name: value.to(device) for name, value in network.named_buffers()}
    network.to_empty(device="cpu" if offload else device)
    for name, value in buffers.items():
        owner, _, leaf = name.rpartition(".")
        network.get_submodule(owner)._buffers[leaf] = value


@torch.no_grad()
def fill(
    network: nn.Module, weights: Mapping[str, Tensor], *, device: torch.device, main: bool, offload: bool = False
) -> nn.Module:
    """Give a skeleton, sharded or not, its weights; in place.

    One tensor at a time travels from process 0 to those that hold a part of it.

    Args:
        network: Its parameters on the meta device.
        weights: Whole parameters by name at process 0; not read elsewhere.
        device: Where the network computes.
        main: Whether this is process 0.
        offload: Whether it was spread with :attr:`Policy.offload`.
    """
    allocate(network, device=device, offload=offload)
    for name, parameter in network.named_parameters():
        whole = weights[name].to(device, parameter.dtype) if main else None
        if not isinstance(parameter, DTensor):
            assert whole is not None
            parameter.copy_(whole)
            continue
        if whole is None:
            whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        parameter.to_local().copy_(distribute_tensor(whole, parameter.device_mesh, parameter.placements).to_local())
    return network


def whole(value: Tensor) -> Tensor:
    """A tensor that may be spread, gathered; every process that holds a part has to call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor that may be spread; writing to it changes the tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def shard_group(value: Tensor) -> dist.ProcessGroup | None:
    """The processes among which a tensor is cut up; None when this process has all of it."""
    if not isinstance(value, DTensor):
        return None
    group = value.device_mesh.get_group("shard")
    return group if dist.get_world_size(group) > 1 else None


def _prefetch_in_order(network: FSDPModule, blocks: Sequence[FSDPModule], *, ahead: int) -> None:
    """Let the network and each of its blocks begin to gather the next ``ahead`` blocks; from its second call on.

    The order is that of the first call, not of the definition: a block that is gathered and not used would keep those
    weights, whatever is written to them before it is.
    """
    order: dict[FSDPModule, None] = {}

    def called(block: nn.Module, inputs: Any) -> None:
        assert isinstance(block, FSDPModule)
        order[block] = None

    def learnt(root: nn.Module, inputs: Any, output: Any) -> None:
        for hook in hooks:
            hook.remove()
        chain = [network, *order]
        for place, module in enumerate(chain):
            module.set_modules_to_forward_prefetch(chain[place + 1 : place + 1 + ahead])
        _FIRST[root] = tuple(chain[: 1 + ahead])

    hooks = [block.register_forward_pre_hook(called) for block in blocks if isinstance(block, nn.Module)]
    assert isinstance(network, nn.Module)
    hooks.append(network.register_forward_hook(learnt))


def begin_gathering(network: nn.Module) -> None:
    """Begin what the network's next call needs first, and return at once; only when nothing is written to it before.

    Nothing happens without ``Policy.prefetch``, before the network's first call, or when it is whole already.
    """
    for module in _FIRST.get(network, ()):
        module.unshard(async_op=True)
