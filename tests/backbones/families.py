"""The backbones that the conformance suite runs over, and their released networks on the meta device."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fewstep.backbones import adapter_class
from fewstep.testing import Family
from tests.backbones import tiny, tiny_2026, tiny_cogvideox, tiny_packed, tiny_sana, tiny_vp, tiny_wan

PUBLISHED = Path(__file__).parents[1] / "published"

FAMILIES: dict[str, Family] = {
    str(family): family
    for family in (
        Family("sd3", tiny.sd3_pipeline, {"max_sequence_length": 24}, "sd35"),
        Family("sd3", lambda: tiny.sd3_pipeline(sd35=False)),
        Family("sd3", lambda: tiny.sd3_pipeline(t5=False), {"max_sequence_length": 4}, "sd3-without-t5"),
        Family("sd3", lambda: tiny.sd3_pipeline(sd35=False).to(torch.float16), name="sd3-stored-in-fp16"),
        Family(
            "sd3",
            lambda: tiny.sd3_pipeline(scheduler={"use_dynamic_shifting": True, "base_image_seq_len": 4}),
            name="sd3-dynamic-shift",
        ),
        Family("flux", tiny_packed.flux_pipeline, {"max_sequence_length": 24}, **tiny_packed.LAYOUT),
        Family("longcat", tiny_packed.longcat_pipeline, **tiny_packed.LAYOUT),
        Family(
            "longcat",
            tiny_packed.longcat_pipeline,
            {"renormalise": None},
            "longcat-plain-guidance",
            call={"enable_cfg_renorm": False},
            **tiny_packed.LAYOUT,
        ),
        Family(
            "sana",
            tiny_sana.sana_pipeline,
            {"max_sequence_length": 24},
            size=(32, 32),
            other_size=(64, 32),
            prepare=tiny_sana.take_sigmas,
        ),
        Family(
            "sana",
            lambda: tiny_sana.sana_pipeline(euler=True, qk_norm="rms_norm_across_heads", timestep_scale=0.5),
            {"max_sequence_length": 24, "instruction": False},
            "sana-euler",
            size=(32, 32),
            other_size=(32, 64),
        ),
        Family(
            "wan",
            tiny_wan.wan_pipeline,
            {"max_sequence_length": 24, "frames": 5},
            other_size=(32, 16),
            prepare=tiny_sana.take_sigmas,
            stock_call=tiny_wan.call,
        ),
        Family(
            "wan",
            lambda: tiny_wan.wan_pipeline(ti2v=True),
            {"max_sequence_length": 24, "frames": 5},
            "wan22",
            size=(32, 32),
            other_size=(64, 32),
            prepare=tiny_sana.take_sigmas,
            stock_call=tiny_wan.call,
        ),
        Family(
            "cogvideox",
            tiny_cogvideox.cogvideox_pipeline,
            {"max_sequence_length": tiny_cogvideox.TOKENS, "frames": 9},
            other_size=(32, 16),
            **tiny_cogvideox.HOOKS,
        ),
        Family("pixart", tiny_vp.pixart_pipeline, {"max_sequence_length": 24}, **tiny_vp.hooks(tolerance=2e-3)),
        Family("sd15", tiny_vp.sd_pipeline, **tiny_vp.hooks(tolerance=2e-4)),
        Family(
            "sd15",
            lambda: tiny_vp.sd_pipeline(prediction_type="v_prediction"),
            name="sd21",
            **tiny_vp.hooks(tolerance=1e-5),
        ),
        Family("sdxl", tiny_vp.sdxl_pipeline, **tiny_vp.hooks(tolerance=2e-4)),
        Family("z-image", tiny_2026.z_image_pipeline, {"max_sequence_length": 40}),
        Family(
            "qwen-image",
            tiny_2026.qwen_image_pipeline,
            {"max_sequence_length": 200},
            other_size=(24, 16),
            **tiny_2026.QWEN_LAYOUT,
        ),
        Family(
            "qwen-image-2.1",
            tiny_2026.qwen_image21_pipeline,
            {"max_tokens": 200},
            size=(32, 32),
            other_size=(64, 32),
            **tiny_2026.QWEN21_LAYOUT,
        ),
        Family(
            "krea2",
            tiny_2026.krea2_pipeline,
            {"max_sequence_length": 200},
            other_size=(24, 16),
            **tiny_2026.KREA2_LAYOUT,
        ),
        Family("flux2-klein", tiny_2026.klein_pipeline, {"max_sequence_length": 40}, **tiny_2026.FLUX2_LAYOUT),
        Family("flux2", tiny_2026.flux2_dev_pipeline, {"max_sequence_length": 40}, **tiny_2026.FLUX2_LAYOUT),
        Family("chroma", tiny_2026.chroma_pipeline, {"max_sequence_length": 24}, **tiny_packed.LAYOUT),
    )
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


KLEIN_4B = "black-forest-labs--FLUX.2-klein-base-4B"


def published(name: str, file: str) -> dict[str, Any]:
    """A published file without what tells only of its making."""
    whole = json.loads((PUBLISHED / name / file).read_text(encoding="utf-8"))
    return {key: value for key, value in whole.items() if key not in ("_diffusers_version", "_name_or_path")}


def published_files(name: str, **network: Any) -> dict[str, dict[str, Any]]:
    """A published checkpoint's files; ``network`` changes the transformer's."""
    places = {"model_index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    places |= {part: f"{part}/config.json" for part in ("vae", "transformer")}
    files = {part: published(name, place) for part, place in places.items()}
    files["transformer"].update(network)
    return files


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
    "wan21-1.3b": RealConfiguration(
        "wan", "WanTransformer3DModel", published_files(tiny_wan.WAN21, **tiny_wan.SMALL), 1_418_996_800
    ),
    "cogvideox-2b": RealConfiguration(
        "cogvideox", "CogVideoXTransformer3DModel", published_files("THUDM--CogVideoX-2b"), 1_693_783_872
    ),
    "wan22-5b": RealConfiguration("wan", "WanTransformer3DModel", published_files(tiny_wan.WAN22), 4_999_787_712),
    "sd15": RealConfiguration("sd15", "UNet2DConditionModel", tiny_vp.sd_files(), 859_520_964),
    "sd21": RealConfiguration(
        "sd15",
        "UNet2DConditionModel",
        tiny_vp.sd_files(tiny_vp.SD21_UNET, prediction_type="v_prediction"),
        865_910_724,
    ),
    "sdxl": RealConfiguration("sdxl", "UNet2DConditionModel", tiny_vp.sdxl_files(), 2_567_463_684),
    "z-image": RealConfiguration(
        "z-image", "ZImageTransformer2DModel", published_files("Tongyi-MAI--Z-Image"), 6_154_908_736
    ),
    "qwen-image": RealConfiguration(
        "qwen-image", "QwenImageTransformer2DModel", published_files("Qwen--Qwen-Image"), 20_430_401_088
    ),
    "flux2-klein-base-4b": RealConfiguration(
        "flux2-klein", "Flux2Transformer2DModel", published_files(KLEIN_4B), 3_875_544_576
    ),
    "flux2-klein-base-9b": RealConfiguration(
        "flux2-klein",
        "Flux2Transformer2DModel",
        # its files differ from those of 4B in the sizes of the network
        published_files(
            KLEIN_4B, joint_attention_dim=12288, num_attention_heads=32, num_layers=8, num_single_layers=24
        ),
        9_078_581_248,
    ),
    "flux2-dev": RealConfiguration(
        "flux2",
        "Flux2Transformer2DModel",
        {
            # scheduler and VAE are klein's, whose VAE says so; the network's sizes are those of the conversion script
            **published_files(
                KLEIN_4B,
                joint_attention_dim=15360,
                num_attention_heads=48,
                num_layers=8,
                num_single_layers=48,
                guidance_embeds=True,
            ),
            "model_index": published("black-forest-labs--FLUX.2-dev", "model_index.json"),
        },
        32_223_281_152,
    ),
    "chroma1-hd": RealConfiguration(
        "chroma", "ChromaTransformer2DModel", published_files("lodestones--Chroma1-HD"), 8_899_983_424
    ),
    "krea2-raw": RealConfiguration(
        "krea2", "Krea2Transformer2DModel", published_files("krea--Krea-2-Raw"), 12_820_073_036
    ),
    "qwen-image-2.1": RealConfiguration(
        "qwen-image-2.1", "QwenImage21Transformer2DModel", published_files("Qwen--Qwen-Image-2.1"), 7_115_124_736
    ),
}
