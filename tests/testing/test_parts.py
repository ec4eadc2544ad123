"""The tiny parts fit each other; that pipelines are made of them is what every family of the suite shows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fewstep import testing

TEXT = {
    testing.clip_encoder: testing.clip_tokenizer,
    testing.t5_encoder: testing.t5_tokenizer,
    testing.umt5_encoder: testing.t5_tokenizer,
    testing.gemma_encoder: testing.gemma_tokenizer,
    testing.qwen25_vl_encoder: testing.qwen_tokenizer,
    testing.qwen3_encoder: testing.qwen_tokenizer,
    testing.qwen3_vl_encoder: testing.qwen_tokenizer,
    testing.mistral_encoder: testing.qwen_tokenizer,
}
IMAGE_VAES = (testing.kl_vae, testing.dc_vae, testing.flux2_vae)
FILM_VAES = {testing.qwen_image_vae: (1, 4), testing.wan_vae: (3, 8)}
"""Frames of a latent, and pixels along its side."""
Made = Callable[[], Any]


@pytest.mark.parametrize("make", TEXT, ids=lambda make: make.__name__)
def test_an_encoder_answers_to_the_tokens_of_its_tokenizer(make: Made) -> None:
    tokens = TEXT[make]()(["a red cat", "two dogs"], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = make()(**tokens, output_hidden_states=True).hidden_states[-1]
    assert states.shape[:2] == tokens["input_ids"].shape
    assert states.isfinite().all() and not states[0].equal(states[1])


@pytest.mark.parametrize("make", [*TEXT, *IMAGE_VAES, *FILM_VAES], ids=lambda make: make.__name__)
def test_a_part_does_not_drop_out(make: Made) -> None:
    part: nn.Module = make()
    assert not part.training


@pytest.mark.parametrize("make", IMAGE_VAES, ids=lambda make: make.__name__)
def test_two_pixels_make_a_latent(make: Made) -> None:
    with torch.no_grad():
        assert make().decode(torch.zeros(1, 4, 8, 6), return_dict=False)[0].shape == (1, 3, 16, 12)


@pytest.mark.parametrize("make", FILM_VAES, ids=lambda make: make.__name__)
def test_a_film_is_decoded_frame_by_frame(make: Made) -> None:
    frames, factor = FILM_VAES[make]
    with torch.no_grad():
        film = make().decode(torch.zeros(1, 4, frames, 4, 2), return_dict=False)[0]
    assert film.shape == (1, 3, 4 * (frames - 1) + 1, 4 * factor, 2 * factor)
