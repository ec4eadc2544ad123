"""Tiny pipelines of the families of 2026, and how each lays out the latents that its call takes and gives."""

from typing import Any

import torch
from torch import Tensor

from fewstep.backbones import packed
from fewstep.testing import (
    flux2_vae,
    kl_vae,
    mistral_encoder,
    qwen3_encoder,
    qwen3_vl_encoder,
    qwen25_vl_encoder,
    qwen_image21_vae,
    qwen_image_vae,
    qwen_processor,
    qwen_tokenizer,
    stock_unpack,
    t5_encoder,
    t5_tokenizer,
)
from tests.backbones import tiny_packed

WIDTH = 32


def _scheduler(**changes: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**{"use_dynamic_shifting": True, **changes})


def z_image_pipeline() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    return ZImagePipeline(
        scheduler=_scheduler(use_dynamic_shifting=False, shift=6.0),
        vae=kl_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=qwen3_encoder(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer.eval(),
    )


def qwen_image_pipeline() -> Any:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return QwenImagePipeline(
        scheduler=_scheduler(base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02),
        vae=qwen_image_vae(),
        text_encoder=qwen25_vl_encoder(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer.eval(),
    )


def qwen_image21_pipeline() -> Any:
    from diffusers import QwenImage21Pipeline, QwenImage21Transformer2DModel

    transformer = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    return QwenImage21Pipeline(
        scheduler=_scheduler(base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02),
        vae=qwen_image21_vae(),
        text_encoder=qwen3_vl_encoder(head=True),
        processor=qwen_processor(),
        transformer=transformer.eval(),
    )


def krea2_pipeline() -> Any:
    from diffusers import Krea2Pipeline, Krea2Transformer2DModel

    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    return Krea2Pipeline(
        scheduler=_scheduler(max_image_seq_len=6400),
        vae=qwen_image_vae(),
        text_encoder=qwen3_vl_encoder(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer.eval(),
        text_encoder_select_layers=(1, 2),
    )


def _flux2_transformer(*, guidance_embeds: bool) -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    ).eval()


def _flux2_vae() -> Any:
    vae = flux2_vae()
    # as if it had seen latents
    vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 16))
    return vae


def klein_pipeline() -> Any:
    from diffusers import Flux2KleinPipeline

    return Flux2KleinPipeline(
        scheduler=_scheduler(shift=3.0),
        vae=_flux2_vae(),
        text_encoder=qwen3_encoder(layers=27),  # the pipeline joins the states 9, 18 and 27
        tokenizer=qwen_tokenizer(),
        transformer=_flux2_transformer(guidance_embeds=False),
    )


def flux2_dev_pipeline() -> Any:
    from diffusers import Flux2Pipeline

    return Flux2Pipeline(
        scheduler=_scheduler(shift=3.0),
        vae=_flux2_vae(),
        text_encoder=mistral_encoder(layers=30),  # the pipeline joins the states 10, 20 and 30
        tokenizer=qwen_tokenizer(),
        transformer=_flux2_transformer(guidance_embeds=True),
    )


def chroma_pipeline() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    with torch.no_grad():  # modulations as small as trained ones, so that bfloat16 stays near float32
        transformer.distilled_guidance_layer.out_proj.weight.mul_(0.1)
    return ChromaPipeline(
        scheduler=_scheduler(),
        vae=kl_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer.eval(),
    )


def _one_frame(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    return stock_unpack(pipeline, tokens, height, width).squeeze(2)


def _krea2_frame(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    latents: Tensor = pipeline._unpack_latents(tokens, height, width)
    return latents.squeeze(2)


def _statistics(pipeline: Any) -> tuple[Tensor, Tensor]:
    batch_norm = pipeline.vae.bn
    std = (batch_norm.running_var + pipeline.vae.config.batch_norm_eps).sqrt()
    return batch_norm.running_mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _normalised(pipeline: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Klein gives what its VAE decodes; its sampler's states are tokens, of normalised patches."""
    if latents.ndim == 3:
        side = 2 * pipeline.vae_scale_factor
        return packed.unpack(latents, height // side, width // side, 1)
    mean, std = _statistics(pipeline)
    patches: Tensor = pipeline._patchify_latents(latents)
    return (patches - mean) / std


def call_klein(pipeline: Any, arguments: dict[str, Any]) -> Any:
    """Its negative prompt is always empty, but its embeddings may be given."""
    negative = arguments.pop("negative_prompt", None)
    if negative is not None:
        length = arguments["max_sequence_length"]
        arguments["negative_prompt_embeds"], _ = pipeline.encode_prompt(negative, max_sequence_length=length)
    return pipeline(**arguments, return_dict=False)[0]


def call_qwen_image21(pipeline: Any, arguments: dict[str, Any]) -> Any:
    """Prompt by prompt: in a batch the pipeline puts every picture behind the longest text."""
    each = {key: arguments[key] for key in ("prompt", "negative_prompt", "latents") if key in arguments}
    drawn = [
        pipeline(**arguments | {key: values[row : row + 1] for key, values in each.items()}, return_dict=False)[0]
        for row in range(len(arguments["prompt"]))
    ]
    together = torch.cat(drawn)
    return together[:, :3] if arguments["output_type"] == "pt" else together  # without alpha


QWEN_LAYOUT: dict[str, Any] = {**tiny_packed.LAYOUT, "unpack": _one_frame}
KREA2_LAYOUT: dict[str, Any] = {**tiny_packed.LAYOUT, "unpack": _krea2_frame}
FLUX2_LAYOUT: dict[str, Any] = {"unpack": _normalised, "stock_call": call_klein}
QWEN21_LAYOUT: dict[str, Any] = {**QWEN_LAYOUT, "stock_call": call_qwen_image21}
