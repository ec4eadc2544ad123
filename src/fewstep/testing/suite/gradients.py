"""Which parameters receive a gradient, and what an adapter says of the others."""

import fnmatch
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from fewstep.testing.case import Case


def gradients(case: Case, *, checkpointing: bool) -> dict[str, Tensor]:
    """The gradient of every parameter that receives one, from one answer of a fresh network."""
    network = case.adapter.load_network()
    if checkpointing:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
    velocity = case.adapter.velocity(network, case.point(), case.conditioning()[0])
    torch.autograd.backward(velocity.square().mean())
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def declared(case: Case) -> set[str]:
    """Parameters that the adapter says never receive a gradient."""
    names = [name for name, _ in case.network.named_parameters()]
    return {name for rule in case.adapter.never_trained for name in fnmatch.filter(names, rule)}


def require_gradients_as_declared(case: Case, found: Mapping[str, Tensor]) -> None:
    """Fail with what belongs into ``never_trained`` unless all other parameters have a gradient that is not zero."""
    names = [name for name, _ in case.network.named_parameters()]
    still = [name for name in names if name not in found or not found[name].any()]
    said = declared(case)
    problems = [f"{name} receives no gradient, but is not named" for name in still if name not in said]
    problems += [f"{name} receives a gradient, but is named" for name in names if name in said - {*still}]
    if problems:
        lines = "".join(f'        "{name}",\n' for name in _rules(case.adapter.never_trained, names, still))
        pytest.fail(
            f"never_trained of {type(case.adapter).__name__} names other parameters than those without a gradient:\n"
            + "".join(f"  {problem}\n" for problem in problems)
            + "If the pictures are the stock pipeline's, it is the network that leaves them out. Paste this into the "
            "adapter; the numbers of blocks are those of the tiny network, and follow from its configuration:\n\n"
            + (f"    never_trained = (\n{lines}    )\n" if lines else "    never_trained = ()\n"),
            pytrace=False,
        )


def _rules(known: Sequence[str], names: Sequence[str], still: Sequence[str]) -> list[str]:
    """The patterns that are right, and by name what they leave out."""
    right = [rule for rule in known if (matching := fnmatch.filter(names, rule)) and {*matching} <= {*still}]
    return [*right, *(name for name in still if not any(fnmatch.fnmatch(name, rule) for rule in right))]
