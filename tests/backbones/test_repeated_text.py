"""Equal text tokens that go through a network as one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones.repeated_text import count_last
from tests.backbones import tiny

ZEROS, OTHERS, SIDE = 7, 5, 8


def network_of(*, sd35: bool, checkpointing: bool) -> nn.Module:
    network: nn.Module = tiny.sd3_pipeline(sd35=sd35, t5=False).transformer.double()
    if checkpointing:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
    return network


def asked(network: nn.Module, *, merged: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The answer and the gradients of a sum of it, with equal tokens one by one or as one."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config: Any = network.config
        latents = torch.randn(2, config.in_channels, SIDE, SIDE, dtype=torch.float64)
        text = torch.randn(2, OTHERS, config.joint_attention_dim, dtype=torch.float64)
        pooled = torch.randn(2, config.pooled_projection_dim, dtype=torch.float64)
        weights = torch.randn(latents.shape, dtype=torch.float64)
    zeros = text.new_zeros(2, 1 if merged else ZEROS, text.shape[2])
    text = torch.cat([text, zeros], dim=1)
    told = count_last(network, text, copies=ZEROS, image_tokens=(SIDE // 2) ** 2) if merged else None
    answer = network(latents, text, pooled, torch.tensor([500.0, 900.0]), joint_attention_kwargs=told)[0]
    network.zero_grad()
    (answer * weights).sum().backward()
    return answer.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.numeric
@pytest.mark.parametrize("sd35", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_token_that_counts_for_equal_ones_changes_no_answer_and_no_gradient(
    sd35: bool, checkpointing: bool
) -> None:
    network = network_of(sd35=sd35, checkpointing=checkpointing)
    answer, gradients = asked(network, merged=False)
    of_one, of_ones_gradients = asked(network, merged=True)
    # float64: sums in another order; the norm of queries and keys, which only SD3.5 has, is float32 in any case
    rounding = {"rtol": 1e-5, "atol": 1e-7} if sd35 else {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(of_one, answer, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(of_ones_gradients, gradients, **rounding)


def test_a_network_that_once_counted_answers_as_before() -> None:
    network = network_of(sd35=True, checkpointing=False)
    before, _ = asked(network, merged=False)
    asked(network, merged=True)
    assert torch.equal(asked(network, merged=False)[0], before)
