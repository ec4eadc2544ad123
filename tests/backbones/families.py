"""The backbones that the conformance suite runs over: one line per tiny pipeline, one per real configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.backbones import adapter_class
from tests.backbones import tiny, tiny_packed, tiny_sana, tiny_vp


def sd3_encode(pipeline: Any, prompts: list[str], call: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The stock pipeline's embeddings in the order of our conditioning: of the prompts, of the unconditional branch."""
    embeds = pipeline.encode_prompt(prompts, None, None, do_classifier_free_guidance=True, **call)
    return list(embeds[0::2]), list(embeds[1::2])


@dataclass(frozen=True)
class Family:
    """A tiny real pipeline of one family.

    Attributes:
        build: Makes the pipeline.
        config: Fields of the backbone config beside the model and its own size.
        size: Height and width of the default pictures, in pixels.
        other_size: Another size, not square.
        call: Arguments of the stock call that the config's fields stand for.
        encode: Asks the stock pipeline for its embeddings.
        prepare: Changes the stock pipeline before it is compared, where its own scheduler takes no grid.
        pack, unpack: The stock pipeline's own packing of latents, where it has one; sizes are in pixels.
        grid: The stock call's arguments for pre-shift levels.
        flow_sigma: Maps the stock scheduler's noise levels to ours.
        flow_state: Maps the stock sampler's state at one of our noise levels to ours.
        tolerance: Largest difference of a latent, where rounding is enlarged on the way.
    """

    kind: str
    build: Callable[[], Any]
    config: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (16, 16)
    other_size: tuple[int, int] = (24, 12)
    call: dict[str, Any] = field(default_factory=dict)
    encode: Callable[[Any, list[str], dict[str, Any]], tuple[list[Tensor], list[Tensor]]] = sd3_encode
    prepare: Callable[[Any], None] = lambda pipeline: None
    pack: Callable[[Any, Tensor], Tensor] = lambda pipeline, latents: latents
    unpack: Callable[[Any, Tensor, int, int], Tensor] = lambda pipeline, latents, height, width: latents
    grid: Callable[[Sequence[float]], dict[str, Any]] = lambda levels: {"sigmas": list(levels)}
    flow_sigma: Callable[[Tensor], Tensor] = lambda sigma: sigma
    flow_state: Callable[[Tensor, Tensor], Tensor] = lambda state, sigma: state
    tolerance: float = 1e-5


FAMILIES: dict[str, Family] = {
    "sd35": Family("sd3", tiny.sd3_pipeline, {"max_sequence_length": 24}, call={"max_sequence_length": 24}),
    "sd3": Family("sd3", lambda: tiny.sd3_pipeline(sd35=False)),
    "sd3-without-t5": Family(
        "sd3", lambda: tiny.sd3_pipeline(t5=False), {"max_sequence_length": 1}, call={"max_sequence_length": 1}
    ),
    "sd3-stored-in-fp16": Family("sd3", lambda: tiny.sd3_pipeline(sd35=False).to(torch.float16)),
    "sd3-dynamic-shift": Family(
        "sd3", lambda: tiny.sd3_pipeline(scheduler={"use_dynamic_shifting": True, "base_image_seq_len": 4})
    ),
    "flux": Family(
        "flux",
        tiny_packed.flux_pipeline,
        {"max_sequence_length": 24},
        call={"max_sequence_length": 24},
        encode=tiny_packed.flux_encode,
        pack=tiny_packed.pack,
        unpack=tiny_packed.unpack,
    ),
    "longcat": Family(
        "longcat",
        tiny_packed.longcat_pipeline,
        call={"enable_prompt_rewrite": False},
        encode=tiny_packed.longcat_encode,
        pack=tiny_packed.pack,
        unpack=tiny_packed.unpack,
    ),
    "longcat-plain-guidance": Family(
        "longcat",
        tiny_packed.longcat_pipeline,
        {"renormalise": None},
        call={"enable_prompt_rewrite": False, "enable_cfg_renorm": False},
        encode=tiny_packed.longcat_encode,
        pack=tiny_packed.pack,
        unpack=tiny_packed.unpack,
    ),
    "sana": Family(
        "sana",
        tiny_sana.sana_pipeline,
        {"max_sequence_length": 24},
        size=(32, 32),
        other_size=(64, 32),
        call={"max_sequence_length": 24, "use_resolution_binning": False},
        encode=tiny_sana.encode,
        prepare=tiny_sana.take_sigmas,
    ),
    "sana-euler": Family(
        "sana",
        lambda: tiny_sana.sana_pipeline(euler=True, qk_norm="rms_norm_across_heads", timestep_scale=0.5),
        {"max_sequence_length": 24, "instruction": False},
        size=(32, 32),
        other_size=(32, 64),
        call={
            "max_sequence_length": 24,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
        },
        encode=tiny_sana.encode,
    ),
    "pixart": Family(
        "pixart",
        tiny_vp.pixart_pipeline,
        {"max_sequence_length": 24},
        call={"max_sequence_length": 24, "clean_caption": False, "use_resolution_binning": False},
        **tiny_vp.hooks(tiny_vp.pixart_encode, tolerance=2e-3),
    ),
    "sd15": Family("sd15", tiny_vp.sd_pipeline, **tiny_vp.hooks(tiny_vp.sd_encode, tolerance=2e-4)),
    "sd21": Family(
        "sd15",
        lambda: tiny_vp.sd_pipeline(prediction_type="v_prediction"),
        **tiny_vp.hooks(tiny_vp.sd_encode, tolerance=1e-5),
    ),
    "sdxl": Family("sdxl", tiny_vp.sdxl_pipeline, **tiny_vp.hooks(tiny_vp.sdxl_encode, tolerance=2e-4)),
}


@dataclass
class RealConfiguration:
    """A released checkpoint's network, built on the meta device.

    Attributes:
        files: Excerpts of the JSON files that the adapter reads.
        num_parameters: From the fact sheet.
    """

    kind: str
    network_class: str
    files: dict[str, dict[str, Any]]
    num_parameters: int

    @cached_property
    def components(self) -> dict[str, Any]:
        """The files as opening the checkpoint gives them."""
        return dict(tiny.whole(self.files, self.network_class, adapter_class(self.kind).vae_class))  # type: ignore[attr-defined]


def _sd3_components(**network: Any) -> dict[str, dict[str, Any]]:
    common = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "attention_head_dim": 64,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 2048,
    }
    return {
        "model_index": {
            "_class_name": "StableDiffusion3Pipeline",
            "text_encoder_3": ["transformers", "T5EncoderModel"],
        },
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        "vae": {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 1.5305, "shift_factor": 0.0609},
        "transformer": {**common, **network},
    }


SD3_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
REAL_CONFIGURATIONS: dict[str, RealConfiguration] = {
    "sd3-medium": RealConfiguration(
        "sd3", "SD3Transformer2DModel", _sd3_components(**SD3_MEDIUM, dual_attention_layers=[]), 2_028_328_000
    ),
    "sd35-medium": RealConfiguration(
        "sd3",
        "SD3Transformer2DModel",
        _sd3_components(
            **{**SD3_MEDIUM, "pos_embed_max_size": 384},
            dual_attention_layers=list(range(13)),
            qk_norm="rms_norm",
        ),
        2_243_171_520,
    ),
    "sd35-large": RealConfiguration(
        "sd3",
        "SD3Transformer2DModel",
        _sd3_components(
            num_layers=38,
            num_attention_heads=38,
            caption_projection_dim=2432,
            pos_embed_max_size=192,
            dual_attention_layers=[],
            qk_norm="rms_norm",
        ),
        8_056_627_520,
    ),
    "flux1-dev": RealConfiguration(
        "flux",
        "FluxTransformer2DModel",
        tiny_packed.components("FluxPipeline", tiny_packed.FLUX_DEV),
        11_901_408_320,
    ),
    "longcat-image": RealConfiguration(
        "longcat",
        "LongCatImageTransformer2DModel",
        tiny_packed.components("LongCatImagePipeline", tiny_packed.LONGCAT),
        6_270_668_864,
    ),
    "sana-600m": RealConfiguration(
        "sana", "SanaTransformer2DModel", tiny_sana.files(**tiny_sana.SANA_600M), 591_747_872
    ),
    "sana-1600m": RealConfiguration(
        "sana", "SanaTransformer2DModel", tiny_sana.files(**tiny_sana.SANA_1600M), 1_604_462_752
    ),
    "pixart-sigma": RealConfiguration("pixart", "PixArtTransformer2DModel", tiny_vp.pixart_files(), 610_856_096),
    "sd15": RealConfiguration("sd15", "UNet2DConditionModel", tiny_vp.sd_files(), 859_520_964),
    "sd21": RealConfiguration(
        "sd15",
        "UNet2DConditionModel",
        tiny_vp.sd_files(tiny_vp.SD21_UNET, prediction_type="v_prediction"),
        865_910_724,
    ),
    "sdxl": RealConfiguration("sdxl", "UNet2DConditionModel", tiny_vp.sdxl_files(), 2_567_463_684),
}
