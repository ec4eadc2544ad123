"""Rows lose their padding on the way to the disk, and the network does not notice."""

from pathlib import Path

import pytest
import torch

from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.data import stored_prompt
from fewstep.testing.case import open_adapter, save
from tests.backbones.families import FAMILIES

PROMPTS = ["a cat", "a rather long story of two dogs"]


def test_split_rows_join_to_the_same_bits() -> None:
    torch.manual_seed(0)
    batch = {"embeds": torch.randn(3, 4, 2).bfloat16(), "pooled": torch.randn(3, 5), "number": torch.arange(3)}
    batch["embeds"][0, 2:] = 0.0
    batch["embeds"][1] = -0.0  # not the zero that is dropped
    parts = stored_prompt.split(batch)
    assert [len(part["embeds"]) for part in parts] == [2, 4, 4]
    joined = stored_prompt.join(parts, {name: tuple(value.shape[1:]) for name, value in batch.items()})
    for name, value in batch.items():
        assert torch.equal(joined[name].view(torch.uint8), value.view(torch.uint8)), name


def test_rows_of_other_lengths_have_other_names() -> None:
    one, other = {"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(2)}
    assert stored_prompt.digest(one) != stored_prompt.digest(other)


@pytest.mark.parametrize("name", ["pixart", "sana"])
def test_without_padding_the_networks_answer_and_gradients_are_the_same_bits(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    folder = save(family, tmp_path / "teacher")
    adapter = open_adapter(family, folder)
    cond = adapter.encode(adapter.load_pipeline(vae=None), PROMPTS)
    shapes = {key: tuple(value.shape[1:]) for key, value in cond.tensors.items()}
    parts = stored_prompt.split(stored_prompt.clear_padding(cond.tensors))
    restored = Conditioning(stored_prompt.join(parts, shapes))
    assert len(parts[0]["prompt_embeds"]) < shapes["prompt_embeds"][0]
    assert not torch.equal(restored.tensors["prompt_embeds"], cond.tensors["prompt_embeds"])

    def answer(told: Conditioning) -> list[torch.Tensor]:
        network = adapter.load_network()
        x = torch.randn(2, *adapter.latent_shape(*family.size), generator=torch.Generator().manual_seed(0))
        velocity = adapter.velocity(network, NoisyLatent(x, torch.tensor([0.9, 0.4])), told)
        velocity.square().sum().backward()
        return [velocity.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]

    for whole, short in zip(answer(cond), answer(restored), strict=True):
        assert torch.equal(whole, short)
