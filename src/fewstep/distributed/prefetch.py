"""Weights of a spread network on their way before they are needed.

FSDP2 gathers a group of weights when its turn comes. With a setting, each block begins to gather the next ones, and the
trainer lets a network begin while another one still computes: on a GPU the first gathering of a call would otherwise
wait for everything that was computed before it.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.distributed.fsdp import FSDPModule

_FIRST: WeakKeyDictionary[nn.Module, tuple[FSDPModule, ...]] = WeakKeyDictionary()
"""By network: what its calls need first."""


def prefetch_in_order(network: FSDPModule, blocks: Sequence[FSDPModule], *, ahead: int) -> None:
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

    Nothing happens without :func:`prefetch_in_order`, before the network's first call, or when it is whole already.
    """
    for module in _FIRST.get(network, ()):
        module.unshard(async_op=True)
