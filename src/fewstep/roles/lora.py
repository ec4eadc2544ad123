"""Low-rank factors of several roles on one frozen base, and switching between them.

peft makes the layers. Which role's factors act is switched here and not with peft's ``set_adapter``, which also turns
``requires_grad`` of the others off, so that an optimiser or a checkpoint loses them without a word.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewstep.roles.weights import LoraWeights

_FACTORS = ("lora_A", "lora_B")


class LoraSwitch:
    """Says which role's factors act in a network; None lets the bare base answer.

    Args:
        network: Holds the factors of every role.
    """

    def __init__(self, network: nn.Module) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
        self.active: str | None = None
        self._set(None)

    @contextmanager
    def use(self, role: str | None) -> Iterator[None]:
        """Let ``role``'s factors act for a while."""
        before = self.active
        self._set(role)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, role: str | None) -> None:
        if self.active == role and role is not None:
            return
        for layer in self._layers:
            layer._disable_adapters = role is None
            layer._active_adapter = [] if role is None else [role]
        self.active = role


def attach(network: nn.Module, weights: LoraWeights, role: str, *, targets: Sequence[str]) -> None:
    """Add one role's factors to a network, in place; the base is frozen, all factors are trainable, in float32.

    Args:
        network: Its parameters may be on the meta device; the factors are made where the base's weights are.
        weights: Rank, scale and targets.
        role: Names the factors.
        targets: The backbone's own targets, unless ``weights`` has some.
    """
    from peft import LoraConfig, inject_adapter_in_model

    chosen = list(weights.targets or targets)
    alpha = weights.rank if weights.alpha is None else weights.alpha
    config = LoraConfig(r=weights.rank, lora_alpha=alpha, target_modules=chosen, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two roles on one base: on purpose
        inject_adapter_in_model(config, network, adapter_name=role, low_cpu_mem_usage=True)
    for name, parameter in network.named_parameters():
        factor = is_factor(name)
        parameter.requires_grad_(factor)
        if factor:
            parameter.data = parameter.data.float()


def is_factor(name: str, role: str | None = None) -> bool:
    """Whether a parameter is a low-rank factor, of one role if given."""
    parts = name.split(".")
    return any(part in _FACTORS and (role is None or parts[place + 1] == role) for place, part in enumerate(parts[:-1]))


def plain_name(name: str, role: str) -> str:
    """A factor's name without its role, the same for every role: ``a.lora_A.student.weight`` -> ``a.lora_A.weight``."""
    return name.replace(f".{role}.", ".", 1) if is_factor(name, role) else name


def base_name(name: str) -> str:
    """The name that a base's parameter had before factors were attached."""
    return name.replace(".base_layer.", ".")


def initial_factor(name: str, shape: torch.Size, *, seed: int) -> Tensor:
    """A fresh factor, float32 on the CPU: B is zero, A uniform in +-1/sqrt(inputs), named by its layer and the seed.

    Args:
        name: :func:`plain_name`, so that all roles start from the same A.
    """
    if ".lora_B." in name:
        return torch.zeros(shape)
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8, person=b"fewstep-lora").digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
    bound = 1.0 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def product(factor_b: Tensor, factor_a: Tensor, *, scaling: float, shape: torch.Size) -> Tensor:
    """What two factors add to their base's weight (or to some of its rows): ``scaling B A`` in the weight's shape."""
    return (scaling * (factor_b.flatten(1) @ factor_a.flatten(1))).view(shape)
