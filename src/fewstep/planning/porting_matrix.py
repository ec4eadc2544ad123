"""The porting matrix: every checkpoint a user may think of as a teacher, and what becomes of it.

Parameters count the denoising network alone. What stands here is checked by tests against the recipes, the adapters
and the networks' real configurations; nothing here was measured on real weights.
"""

from dataclasses import dataclass
from typing import Literal

from fewstep.backbones.refused import distilled_name, other_medium

_Prediction = Literal["velocity", "minus velocity", "epsilon", "epsilon or v", "trigflow", "unknown"]
_Status = Literal["tiny weights only", "refused"]
"""The first: the conformance suite passes on tiny random weights; the released weights were never run here."""


@dataclass(frozen=True)
class Target:
    """One row.

    Attributes:
        name: The recipe's name where there is one.
        family: Kind of the adapter, or a word for what it is.
        pipeline: Class of its diffusers pipeline.
        model: Repository id.
        parameters: Of the denoising network; None where it is a group of checkpoints.
        prediction: What the network answers, before the adapter.
        difficulty: Of the port: easy, medium or hard.
        blocker: What made or makes the port more than a rename.
        notes: What a user should know before choosing it.
        teraflop: One forward of one sample at the recipe's size, 1e12 floating-point operations.
        reason: Why it is refused; empty for the others.
    """

    name: str
    family: str
    pipeline: str
    model: str
    parameters: int | None
    prediction: _Prediction
    status: _Status = "tiny weights only"
    difficulty: str = ""
    blocker: str = ""
    notes: str = ""
    teraflop: float | None = None
    reason: str = ""

    @property
    def refused(self) -> bool:
        return self.status == "refused"


PORTED = (
    Target(
        "sd3-medium", "sd3", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3-medium-diffusers",
        2_028_328_000, "velocity", difficulty="easy", blocker="none: the model the protocol was made after",
        notes="gated; static shift 3; the published settings", teraflop=8.904,
    ),
    Target(
        "sd35-medium", "sd3", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-medium",
        2_243_171_520, "velocity", difficulty="easy", blocker="a second attention in 13 blocks: more LoRA targets",
        notes="gated", teraflop=11.250,
    ),
    Target(
        "sana-600m", "sana", "SanaPipeline", "Efficient-Large-Model/Sana_600M_1024px_diffusers",
        591_747_872, "velocity", difficulty="easy", blocker="the stock scheduler takes no sigmas",
        notes="the cheapest at 1024 px; non-commercial", teraflop=1.121,
    ),
    Target(
        "sana-1600m", "sana", "SanaPipeline", "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
        1_604_462_752, "velocity", difficulty="easy", blocker="the stock scheduler takes no sigmas",
        notes="non-commercial", teraflop=2.967,
    ),
    Target(
        "sd35-large", "sd3", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-large",
        8_056_627_520, "velocity", difficulty="easy", blocker="memory: three networks of 8 B",
        notes="gated", teraflop=31.121,
    ),
    Target(
        "longcat-image", "longcat", "LongCatImagePipeline", "meituan-longcat/LongCat-Image",
        6_270_668_864, "velocity", difficulty="medium",
        blocker="packed latents, a processor that needs torchvision, renormalised guidance",
        notes="dynamic shift; open licence", teraflop=39.156,
    ),
    Target(
        "flux1-dev", "flux", "FluxPipeline", "black-forest-labs/FLUX.1-dev",
        11_901_408_320, "velocity", difficulty="hard", blocker="no unconditional branch: guidance is an input",
        notes="gated, non-commercial; needs LoRA or sharding", teraflop=74.385,
    ),
    Target(
        "wan21-1.3b", "wan", "WanPipeline", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        1_418_996_800, "velocity", difficulty="medium", blocker="videos: frames in latents; a pipeline without a grid",
        notes="81 frames of 480 x 832; the 14B model through the same adapter; open licence", teraflop=283.002,
    ),
    Target(
        "wan22-5b", "wan", "WanPipeline", "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        4_999_787_712, "velocity", difficulty="medium", blocker="as wan21-1.3b, and a time per token",
        notes="121 frames of 704 x 1280; open licence", teraflop=520.655,
    ),
    Target(
        "cogvideox-2b", "cogvideox", "CogVideoXPipeline", "THUDM/CogVideoX-2b",
        1_693_783_872, "epsilon or v", difficulty="medium", blocker="v-prediction on betas that end without signal",
        notes="49 frames of 480 x 720; 5b and 1.5 are not driven; open licence", teraflop=119.997,
    ),
    Target(
        "pixart-sigma", "pixart", "PixArtSigmaPipeline", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        610_856_096, "epsilon", difficulty="medium", blocker="epsilon model: change of variables, sigma below 1",
        notes="not a flow model, whatever is written", teraflop=6.634,
    ),
    Target(
        "sd15", "sd15", "StableDiffusionPipeline", "stable-diffusion-v1-5/stable-diffusion-v1-5",
        859_520_964, "epsilon or v", difficulty="medium", blocker="epsilon model: change of variables, sigma below 1",
        notes="512 px; SD 2.1 goes through the same adapter", teraflop=0.803,
    ),
    Target(
        "sdxl", "sdxl", "StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0",
        2_567_463_684, "epsilon", difficulty="medium", blocker="as sd15, and time ids and a zeroed negative prompt",
        notes="the VAE wants float32", teraflop=6.761,
    ),
    Target(
        "z-image", "z-image", "ZImagePipeline", "Tongyi-MAI/Z-Image", 6_154_908_736, "minus velocity",
        difficulty="medium", blocker="lists instead of batches, a clock that runs backwards",
        notes="Apache-2.0; guidance counted from 0", teraflop=62.506,
    ),
    Target(
        "flux2-klein-base-4b", "flux2-klein", "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-base-4B",
        3_875_544_576, "velocity", difficulty="medium", blocker="a shift that depends on the number of steps",
        notes="Apache-2.0", teraflop=34.820,
    ),
    Target(
        "flux2-klein-base-9b", "flux2-klein", "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-base-9B",
        9_078_581_248, "velocity", difficulty="medium", blocker="a shift that depends on the number of steps",
        notes="non-commercial, gated; LoRA", teraflop=75.515,
    ),
    Target(
        "chroma1-hd", "chroma", "ChromaPipeline", "lodestones/Chroma1-HD", 8_899_983_424, "velocity",
        difficulty="medium", blocker="a mask that is added to attention and masks nothing",
        notes="Apache-2.0; FLUX.1's blocks with real guidance; LoRA", teraflop=74.569,
    ),
    Target(
        "qwen-image", "qwen-image", "QwenImagePipeline", "Qwen/Qwen-Image", 20_430_401_088, "velocity",
        difficulty="hard", blocker="shift_terminal bends short grids, ragged text, 20 B",
        notes="Apache-2.0; Qwen-Image-2512 too; LoRA", teraflop=78.304,
    ),
    Target(
        "flux2-dev", "flux2", "Flux2Pipeline", "black-forest-labs/FLUX.2-dev", 32_223_281_152, "velocity",
        difficulty="hard", blocker="32 B, guidance as an input, a text encoder of 24 B",
        notes="gated, non-commercial; LoRA", teraflop=282.600,
    ),
    Target(
        "krea2-raw", "krea2", "Krea2Pipeline", "krea/Krea-2-Raw", 12_820_073_036, "velocity",
        difficulty="medium", blocker="text of twelve layers, guidance counted from 0",
        notes="a licence with conditions; LoRA", teraflop=128.987,
    ),
    Target(
        "qwen-image-2.1", "qwen-image-2.1", "QwenImage21Pipeline", "Qwen/Qwen-Image-2.1", 7_115_124_736, "velocity",
        difficulty="hard", blocker="guidance-distilled, positions that depend on the batch, a processor of pictures",
        notes="non-commercial; no ca; LoRA", teraflop=74.394,
    ),
)  # fmt: skip
"""In the recommended order: what teaches most for the least cost and doubt, epsilon models, then those of 2026."""


def _distilled(name: str, pipeline: str, model: str, parameters: int | None, prediction: _Prediction) -> Target:
    kind = distilled_name(model)
    assert kind is not None
    return Target(name, "distilled", pipeline, model, parameters, prediction, status="refused", reason=kind.reason)


def _other_medium(name: str, pipeline: str, model: str, parameters: int | None, prediction: _Prediction) -> Target:
    return Target(
        name, "video or 3-D", pipeline, model, parameters, prediction,
        status="refused", reason=str(other_medium(pipeline)),
    )  # fmt: skip


_SD3, _SDXL = "StableDiffusion3Pipeline", "StableDiffusionXLPipeline"
REFUSED = (
    _distilled("flux1-schnell", "FluxPipeline", "black-forest-labs/FLUX.1-schnell", 11_891_178_560, "velocity"),
    _distilled(
        "sana-sprint-600m", "SanaSprintPipeline", "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers",
        593_501_216, "trigflow",
    ),
    _distilled(
        "sana-sprint-1600m", "SanaSprintPipeline", "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
        1_610_237_472, "trigflow",
    ),
    _distilled("sd35-large-turbo", _SD3, "stabilityai/stable-diffusion-3.5-large-turbo", 8_056_627_520, "velocity"),
    _distilled("sdxl-turbo", _SDXL, "stabilityai/sdxl-turbo", 2_567_463_684, "epsilon"),
    _distilled("sd-turbo", "StableDiffusionPipeline", "stabilityai/sd-turbo", 865_910_724, "epsilon"),
    _distilled("sd3-medium-cdm", _SD3, "byliutao/stable-diffusion-3-medium-turbo", 2_028_328_000, "velocity"),
    _distilled("longcat-image-cdm", "LongCatImagePipeline", "byliutao/Longcat-Image-Turbo", 6_270_668_864, "velocity"),
    _distilled("latent-consistency", "LatentConsistencyModelPipeline", "SimianLuo/LCM_Dreamshaper_v7", None, "epsilon"),
    _distilled("hyper-sd", _SDXL, "ByteDance/Hyper-SD", None, "epsilon"),
    _distilled("sdxl-lightning", _SDXL, "ByteDance/SDXL-Lightning", None, "epsilon"),
    _distilled("dmd2", _SDXL, "tianweiy/DMD2", None, "epsilon"),
    _distilled("flux2-klein-4b", "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-4B", 3_875_544_576, "velocity"),
    _distilled("flux2-klein-9b", "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-9B", 9_078_581_248, "velocity"),
    _distilled("z-image-turbo", "ZImagePipeline", "Tongyi-MAI/Z-Image-Turbo", 6_154_908_736, "minus velocity"),
    _other_medium("hunyuan-video", "HunyuanVideoPipeline", "any HunyuanVideo checkpoint", None, "velocity"),
    _other_medium("ltx-video", "LTXPipeline", "any LTX-Video checkpoint", None, "velocity"),
    _other_medium("mochi", "MochiPipeline", "any Mochi checkpoint", None, "velocity"),
    _other_medium("stable-video", "StableVideoDiffusionPipeline", "any Stable Video Diffusion", None, "epsilon or v"),
    _other_medium("animatediff", "AnimateDiffPipeline", "any AnimateDiff checkpoint", None, "epsilon"),
    _other_medium("shap-e", "ShapEPipeline", "openai/shap-e", None, "unknown"),
)  # fmt: skip

MATRIX = PORTED + REFUSED
