"""What networks are asked, seen from hooks: calls, samples, backward passes, recomputed blocks."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass
class Calls:
    """Of one network.

    Attributes:
        calls: Forwards of the whole network, of batches of any size.
        forward: Samples in them.
        backward_calls: Backward passes.
        backward: Samples in them.
        recomputed: Samples that went through the first block again because of checkpointing.
    """

    calls: int = 0
    forward: int = 0
    backward_calls: int = 0
    backward: int = 0
    recomputed: int = 0

    @property
    def units(self) -> int:
        """One sample through the network: forward 1, backward 2, recomputation 1."""
        return self.forward + 2 * self.backward + self.recomputed


class Counter:
    """Counts what some networks are asked from now on.

    Args:
        networks: By role.
        block_classes: The adapter's; the first block of a network shows what is computed again.
    """

    def __init__(self, networks: Mapping[str, nn.Module], block_classes: Collection[str]) -> None:
        self.roles = {role: Calls() for role in networks}
        for role, network in networks.items():
            network.register_forward_hook(self._asked(role), with_kwargs=True)
            # sharding puts its own name before the class's
            blocks = (m for m in network.modules() if type(m).__name__.removeprefix("FSDP") in block_classes)
            next(blocks).register_forward_pre_hook(self._entered(role), with_kwargs=True)

    def taken(self) -> dict[str, dict[str, int]]:
        """The counts by role since the last time, units included."""
        found = {role: {**asdict(calls), "units": calls.units} for role, calls in self.roles.items()}
        for role in self.roles:
            self.roles[role] = Calls()
        return found

    def _asked(self, role: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            answer = output[0]
            self.roles[role].calls += 1
            self.roles[role].forward += len(answer)
            # every sample of a forward has entered the first block once: what enters it more is recomputed
            self.roles[role].recomputed -= len(answer)
            if answer.requires_grad:
                answer.register_hook(lambda gradient: self._went_back(role, gradient))

        return hook

    def _entered(self, role: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            first = next(value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor))
            self.roles[role].recomputed += len(first)

        return hook

    def _went_back(self, role: str, gradient: Tensor) -> None:
        self.roles[role].backward_calls += 1
        self.roles[role].backward += len(gradient)
