"""Text behind the longest prompt of a batch, which a mask hides from the network, is left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.ragged import without_padding
from fewstep.core.conditioning import Conditioning
from fewstep.sampling import sample_latents, teacher_sigmas, velocity_field
from fewstep.testing.closeness import additions, assert_rounded_alike
from tests.backbones import tiny, tiny_sana, tiny_vp

TOKENS, LENGTHS, SIDE = 80, (5, 33), 8


def pixart(network: nn.Module, latents: Tensor, told: Conditioning) -> Tensor:
    sizes = {"resolution": None, "aspect_ratio": None}
    answer: Tensor = network(latents, timestep=torch.tensor([500, 900]), added_cond_kwargs=sizes, **heard(told))[0]
    return answer


def sana(network: nn.Module, latents: Tensor, told: Conditioning) -> Tensor:
    answer: Tensor = network(latents, timestep=torch.tensor([500.0, 900.0]), **heard(told))[0]
    return answer


def heard(told: Conditioning) -> dict[str, Any]:
    text, mask = (told.tensors[name] for name in ("prompt_embeds", "prompt_attention_mask"))
    return {"encoder_hidden_states": text, "encoder_attention_mask": mask, "return_dict": False}


FAMILIES = {"pixart": (tiny_vp.pixart_pipeline, pixart), "sana": (tiny_sana.sana_pipeline, sana)}


def prompts(width: int, lengths: tuple[int, ...] = LENGTHS, *, tokens: int = TOKENS) -> Conditioning:
    """Random text, also where the mask hides it."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(len(lengths), tokens, width, generator=generator, dtype=torch.float64)
    mask = torch.arange(tokens) < torch.tensor(lengths).unsqueeze(1)
    return Conditioning({"prompt_embeds": text, "prompt_attention_mask": mask.long()})


def asked(ask: Callable[..., Tensor], network: nn.Module, told: Conditioning) -> tuple[Tensor, dict[str, Tensor]]:
    """The answer, and the gradients of a sum of it."""
    generator = torch.Generator().manual_seed(2)
    config: Any = network.config
    latents = torch.randn(2, config.in_channels, SIDE, SIDE, generator=generator, dtype=torch.float64)
    answer = ask(network, latents, told)
    network.zero_grad()
    (answer * torch.randn(answer.shape, generator=generator, dtype=torch.float64)).sum().backward()
    return answer.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.numeric
@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_is_left_out_changes_no_answer_and_no_gradient(family: str) -> None:
    make, ask = FAMILIES[family]
    network = make().transformer.double()
    told = prompts(network.config.caption_channels)
    (short,) = without_padding(told)
    assert short.tensors["prompt_embeds"].shape[1] == short.tensors["prompt_attention_mask"].shape[1] == 64
    answer, gradients = asked(ask, network, told)
    of_short, of_shorts_gradients = asked(ask, network, short)
    # hidden tokens weigh exp(-10000) = 0; sums are in another order, in float64 but for norms in float32
    torch.testing.assert_close(of_short, answer, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(of_shorts_gradients, gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.numeric
@pytest.mark.parametrize("guidance_scale", [None, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_drawn_without_hidden_text_are_the_same(
    family: str, guidance_scale: float | None, tmp_path: Path
) -> None:
    adapter = create_model_adapter(tiny.save(FAMILIES[family][0](), tmp_path / "model"))
    network = adapter.load_network()
    width, steps = network.config.caption_channels, 3
    told, null = prompts(width), prompts(width, (7,))
    noise = torch.randn(2, *adapter.latent_shape(64, 64), generator=torch.Generator().manual_seed(3))
    heard_tokens: list[int] = []

    def listen(module: nn.Module, args: Any, named: dict[str, Any]) -> None:
        heard_tokens.append(named["encoder_hidden_states"].shape[1])

    network.register_forward_pre_hook(listen, with_kwargs=True)

    def whole(point: Any) -> Tensor:
        if guidance_scale is None:
            return adapter.velocity(network, point, told)
        return adapter.guided_velocity(network, point, told, null.expand(2), guidance_scale=guidance_scale)

    field = velocity_field(adapter, network, told, null, guidance_scale=guidance_scale)
    drawn, expected = (sample_latents(each, noise, teacher_sigmas(adapter, steps)) for each in (field, whole))
    assert heard_tokens[: len(heard_tokens) // 2] == [64] * (len(heard_tokens) // 2)
    assert heard_tokens[-1] == TOKENS
    # every step adds the sums of a forward, which guidance enlarges
    assert_rounded_alike(drawn, expected, terms=int(steps * (guidance_scale or 1) ** 2 * additions(network)))


@pytest.mark.numeric
def test_text_that_is_seen_changes_the_answer() -> None:
    make, ask = FAMILIES["sana"]
    network = make().transformer.double()
    told = prompts(network.config.caption_channels)
    cut = Conditioning({name: value[:, :32] for name, value in told.tensors.items()})
    assert float((asked(ask, network, cut)[0] - asked(ask, network, told)[0])[1].abs().max()) > 1e-4


def test_batches_that_go_together_keep_one_length() -> None:
    short, long = without_padding(prompts(4, (3, 9)), prompts(4, (40,)))
    assert short.tensors["prompt_embeds"].shape == (2, 64, 4)
    assert long.tensors["prompt_attention_mask"].shape == (1, 64)


def test_no_more_is_kept_than_there_is() -> None:
    (kept,) = without_padding(prompts(4, (37, 2), tokens=40))
    assert kept.tensors["prompt_embeds"].shape == (2, 40, 4)


def test_a_prompt_that_is_hidden_entirely_keeps_its_padding() -> None:
    (kept,) = without_padding(prompts(4, (5, 0)))
    assert kept.tensors["prompt_embeds"].shape == (2, TOKENS, 4)


def test_other_tensors_stay_as_they_are() -> None:
    told = prompts(4)
    pooled = torch.ones(2, 100)
    (kept,) = without_padding(Conditioning({**told.tensors, "pooled_prompt_embeds": pooled}))
    assert kept.tensors["pooled_prompt_embeds"] is pooled
