"""Whether what an adapter says of its network is there: blocks, layers that take factors, weights that stay."""

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from fewstep.backbones.protocol import ModelAdapter


@dataclass(frozen=True)
class _Anatomy:
    """What an adapter's names match in its network.

    Attributes:
        network: Its class.
        parameters: How many it has.
        blocks: Modules by the class in ``block_classes``.
        factor_layers: Layers that some of ``lora_targets`` match.
        never_trained: Parameters that some pattern of ``never_trained`` matches.
        problems: One sentence for each name that does not match what it should.
    """

    network: str
    parameters: int
    blocks: dict[str, int]
    factor_layers: int
    never_trained: int
    problems: tuple[str, ...]


def anatomy(adapter: ModelAdapter, network: nn.Module) -> _Anatomy:
    """Compare an adapter with its network, which may be on the meta device."""
    modules = dict(network.named_modules())
    classes = Counter(type(module).__name__ for module in modules.values())
    place = f"the {type(network).__name__} of {adapter.config.model}"
    problems = []
    for name in adapter.block_classes:
        if not classes[name]:
            repeated = [kind for kind in classes if "Block" in kind] or [kind for kind in classes if classes[kind] > 1]
            problems.append(f"block_classes has {name}, but {place} has no such module; {_nearest(name, repeated)}.")
    factor_layers: set[str] = set()
    for target in adapter.lora_targets:
        found = [name for name in modules if f".{name}".endswith(f".{target}")]
        factor_layers.update(found)
        unfit = [name for name in found if not _takes_factors(modules[name])]
        if not found:
            ends = {_end(name, target.count(".")) for name, module in modules.items() if _takes_factors(module)}
            problems.append(
                f"lora_targets has {target}, which no layer of {place} is called; {_nearest(target, ends)}."
            )
        elif unfit:
            kind = type(modules[unfit[0]]).__name__
            problems.append(
                f"lora_targets has {target}, which also means {unfit[0]} of {place}, but a {kind} takes no factors."
            )
    parameters = {name: parameter.numel() for name, parameter in network.named_parameters()}
    still: set[str] = set()
    for pattern in adapter.never_trained:
        matching = fnmatch.filter(parameters, pattern)
        still.update(matching)
        if not matching:
            problems.append(f"never_trained has {pattern}, which matches no parameter of {place}.")
    return _Anatomy(
        network=type(network).__name__,
        parameters=sum(parameters.values()),
        blocks={name: classes[name] for name in adapter.block_classes},
        factor_layers=len(factor_layers),
        never_trained=sum(parameters[name] for name in still),
        problems=tuple(problems),
    )


def _takes_factors(module: nn.Module) -> bool:
    """Whether LoRA factors can be attached to a layer."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _end(name: str, dots: int) -> str:
    """The last names of a layer, as many as a target has."""
    return ".".join(name.split(".")[-dots - 1 :])


def _nearest(name: str, there: Iterable[str]) -> str:
    """The names that may have been meant, or the first of those there are."""
    known = sorted({one for one in there if not re.fullmatch(r"[\d.]+", one)})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
    return f"there is {', '.join(near)}" if near else "there is nothing of that kind"
