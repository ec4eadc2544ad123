"""The tiny parts fit each other and the pipelines they are for."""

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


@torch.no_grad()
def drawn(pipeline: Any, **call: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    call = {"prompt": "a red cat", "height": 32, "width": 32, "num_inference_steps": 2, "output_type": "pt", **call}
    return pipeline(**call, return_dict=False)[0]


def test_the_parts_make_a_qwen_image_pipeline() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel

    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=testing.qwen_image_vae(),
        text_encoder=testing.qwen25_vl_encoder(),
        tokenizer=testing.qwen_tokenizer(),
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
    )
    assert drawn(pipeline, negative_prompt=" ", true_cfg_scale=4.0).isfinite().all()


def test_the_parts_make_a_z_image_pipeline() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=testing.kl_vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=testing.qwen3_encoder(),
        tokenizer=testing.qwen_tokenizer(),
        transformer=ZImageTransformer2DModel(
            in_channels=16,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[8, 4, 4],
            axes_lens=[1024, 32, 32],
        ).eval(),
    )
    assert drawn(pipeline, guidance_scale=3.0).isfinite().all()


@pytest.mark.parametrize("name", ["dev", "klein"])
def test_the_parts_make_a_flux2_pipeline(name: str) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Pipeline, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=96,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=name == "dev",
    ).eval()
    pipeline = (Flux2Pipeline if name == "dev" else Flux2KleinPipeline)(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=testing.flux2_vae(),
        text_encoder=testing.mistral_encoder(3) if name == "dev" else testing.qwen3_encoder(3),
        tokenizer=testing.qwen_tokenizer(),
        transformer=transformer,
    )
    assert drawn(pipeline, text_encoder_out_layers=(1, 2, 3)).isfinite().all()


def test_the_parts_make_a_wan_pipeline() -> None:
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    pipeline = WanPipeline(
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        vae=testing.wan_vae(),
        text_encoder=testing.umt5_encoder(),
        tokenizer=testing.t5_tokenizer(),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            text_dim=32,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=32,
        ).eval(),
    )
    assert drawn(pipeline, num_frames=5).isfinite().all()
