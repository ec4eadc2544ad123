"""Already-distilled checkpoints: recognised by name or by a flag of their configuration, refused as teachers.

Known ones may be drawn, in their few steps, without guidance on the uniform grid of their own scheduler.

A renamed folder whose configuration equals its teacher's cannot be told: only the name gave it away.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewstep.backbones.configurations import pipeline_parts
from fewstep.backbones.source import Checkpoint, locate
from fewstep.errors import ConfigError


@dataclass(frozen=True)
class _Distilled:
    """One kind of checkpoint that is no teacher.

    Attributes:
        what: Completes "MODEL is ...".
        instead: What to distil instead.
    """

    what: str
    instead: str = "the checkpoint it was distilled from"

    @property
    def reason(self) -> str:
        """The rest of that sentence, and what to do."""
        return f"{self.what}: it has few steps left to save and cannot be the teacher. Use {self.instead} instead"


_SCHNELL = _Distilled("FLUX.1-schnell, already distilled to 1 to 4 steps", "black-forest-labs/FLUX.1-dev")
_SPRINT = _Distilled(
    "a SANA-Sprint model, already distilled to 1 to 4 steps", "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers"
)
_SD35_TURBO = _Distilled("SD3.5-Large-Turbo, already distilled to 4 steps", "stabilityai/stable-diffusion-3.5-large")
_SD_TURBO = _Distilled(
    "an SD-Turbo or SDXL-Turbo model, already distilled to 1 to 4 steps", "stabilityai/stable-diffusion-xl-base-1.0"
)
_CDM_STUDENT = _Distilled(
    "a published CDM student, already distilled to 4 steps",
    "its teacher (stabilityai/stable-diffusion-3-medium-diffusers or meituan-longcat/LongCat-Image)",
)
_LCM = _Distilled("a latent consistency model, already distilled to 2 to 8 steps")
_HYPER = _Distilled("a Hyper-SD model, already distilled to 1 to 8 steps")
_LIGHTNING = _Distilled("a Lightning model, already distilled to 1 to 8 steps")
_KLEIN = _Distilled("a step-distilled FLUX.2 klein model", "black-forest-labs/FLUX.2-klein-base-4B")
_OWN_GRID = _Distilled("a step-distilled model by its own sample_sigmas")
_OTHER_FLAGGED = _Distilled("a step-distilled model by its own flag is_distilled")
_OTHER = _Distilled("a step-distilled model by its name")
_OUR_STUDENT = _Distilled("a student that fewstep exported", "the teacher named in its README.md")

_BY_NAME: tuple[tuple[str, _Distilled], ...] = (
    (r"schnell", _SCHNELL),
    (r"sana[-_]?sprint", _SPRINT),
    (r"(stable-diffusion-|sd-?)3\.?5-large-turbo", _SD35_TURBO),
    (r"byliutao/(stable-diffusion-3-medium|longcat-image)-turbo", _CDM_STUDENT),
    (r"\b(sdxl|sd)[-_]turbo\b", _SD_TURBO),
    (r"flux\.?2-klein-(?!base)", _KLEIN),
    (r"(?<![a-z])lcm(?![a-z])|latent-consistency", _LCM),
    (r"(?<![a-z])hyper[-_]?(sd|flux)", _HYPER),
    (r"(?<![a-z])lightning(?![a-z])", _LIGHTNING),
    (r"(?<![a-z])(turbo|dmd2?|senseflow|flash-(sd|pixart)|pcm)(?![a-z])", _OTHER),
)
_FEW = 16
"""Steps of a grid that a pipeline brings along; teachers have none, or one as long as they draw."""
_BY_SCHEDULER = {"LCMScheduler": _LCM, "TCDScheduler": _HYPER, "SCMScheduler": _SPRINT}
_FEW_STEP_MODELS = {
    "byliutao/stable-diffusion-3-medium-turbo": 4,
    "byliutao/longcat-image-turbo": 4,
    "black-forest-labs/flux.1-schnell": 4,
    "black-forest-labs/flux.2-klein-4b": 4,
    "black-forest-labs/flux.2-klein-9b": 4,
    "stabilityai/stable-diffusion-3.5-large-turbo": 4,
    "stabilityai/sdxl-turbo": 1,
    "stabilityai/sd-turbo": 1,
    "tongyi-mai/z-image-turbo": 8,
}
"""Steps of few-step models of others. Their files do not say how many, nor that they draw without guidance."""

_VIDEO = (
    r"Video|^(AnimateDiff|Wan|CogVideoX|Hunyuan(Skyreels)|SkyReels|LTX|Mochi|Allegro|Latte|EasyAnimate"
    r"|ConsisID|I2VGenXL|PIA|Lucy|Helios|AnyFlow|ChronoEdit|SanaWM)|^Kandinsky\d(I2V|T2V|TI2VA)|^Cosmos(?!2TextToImage)"
)
_SERVED_VIDEO = ("WanPipeline", "CogVideoXPipeline")
_THREE_D = r"3D|^ShapE|Trellis"


def other_medium(pipeline_class: str) -> str | None:
    """Why a pipeline of videos or 3-D objects is not served; None for pictures, and for the videos that are."""
    if re.search(_VIDEO, pipeline_class) and pipeline_class not in _SERVED_VIDEO:
        return (
            "it makes videos in a way that no backbone does: of video models fewstep distils those of "
            f"{' and '.join(_SERVED_VIDEO)}, which draw from text alone. `fewstep backbones` lists all teachers"
        )
    if re.search(_THREE_D, pipeline_class):
        return (
            "it makes 3-D objects, and fewstep distils models of pictures and videos only. "
            "`fewstep backbones` lists all teachers"
        )
    return None


def refuse(model: str, found: _Distilled | None) -> None:
    """Raise ConfigError when a model was recognised as already distilled."""
    if found is not None:
        raise ConfigError(f"{model} is {found.reason}; if it only looks like one, set backbone.allow_distilled=true.")


def recognise(checkpoint: Checkpoint) -> _Distilled | None:
    """What kind of distilled checkpoint this is, or None."""
    if checkpoint.facts is not None and checkpoint.facts.role == "student":
        return _OUR_STUDENT
    return _by_configuration(checkpoint) or _by_name(checkpoint)


def recognise_name(model: str) -> _Distilled | None:
    """What kind of distilled checkpoint a repository is by its name alone, or None; a folder is read instead."""
    return None if os.path.exists(model) else distilled_name(model)


def _by_name(checkpoint: Checkpoint) -> _Distilled | None:
    found = (distilled_name(name) for name in _names(checkpoint))
    return next((distilled for distilled in found if distilled is not None), None)


def distilled_name(name: str) -> _Distilled | None:
    """What kind of distilled checkpoint a repository or folder of this name is, or None."""
    matches = (distilled for pattern, distilled in _BY_NAME if re.search(pattern, name.lower()))
    return next(matches, None)


def _names(checkpoint: Checkpoint) -> Iterator[str]:
    source = Path(locate(checkpoint.model))
    yield source.resolve().name if source.is_dir() else checkpoint.model
    for name, config in checkpoint.components.items():
        origin = config.get("_name_or_path")
        if isinstance(origin, str) and origin:
            yield _repository_name(origin, component=name)


def _repository_name(origin: str, *, component: str) -> str:
    """OWNER/NAME of a repository id, a cache path or a folder, without the folders above, which say nothing."""
    cached = re.search(r"models--([^/]+?)--([^/]+)", origin)
    if cached:
        return "/".join(cached.groups())
    parts = [part for part in re.split(r"[/\\]+", origin) if part not in ("", component)]
    return "/".join(parts[-1:] if origin.startswith(("/", ".", "~")) else parts[-2:])


def _by_configuration(checkpoint: Checkpoint) -> _Distilled | None:
    index = checkpoint.components["model_index"]
    scheduler = checkpoint.components.get("scheduler", {})
    if checkpoint.pipeline_class.startswith("SanaSprint"):
        return _SPRINT
    if index.get("is_distilled") is True:
        return _KLEIN if checkpoint.pipeline_class.startswith("Flux2") else _OTHER_FLAGGED
    own_grid = index.get("sample_sigmas")
    if isinstance(own_grid, list) and 0 < len(own_grid) <= _FEW:
        return _OWN_GRID
    scheduler_class = pipeline_parts(index).get("scheduler", ("", ""))[1]
    if scheduler_class in _BY_SCHEDULER:
        return _BY_SCHEDULER[scheduler_class]
    networks = [checkpoint.components[name] for name in ("transformer", "unet") if name in checkpoint.components]
    if any(network.get("time_cond_proj_dim") is not None for network in networks):
        return _LCM
    if any(network.get("guidance_embeds") for network in networks) and checkpoint.pipeline_class.startswith("Sana"):
        return _SPRINT
    unguided_flux = checkpoint.pipeline_class == "FluxPipeline" and not any(n.get("guidance_embeds") for n in networks)
    if unguided_flux and not scheduler.get("use_dynamic_shifting"):
        return _SCHNELL
    return None


def few_steps(model: str) -> int | None:
    """The steps of a known few-step model, by its id, a folder OWNER/NAME or its place in the hub's cache."""
    cached = re.search(r"models--([^/]+?)--([^/]+)", model)
    owner_and_name = cached.groups() if cached else re.split(r"[/\\]+", model.rstrip("/\\"))[-2:]
    return _FEW_STEP_MODELS.get("/".join(owner_and_name).lower())
