"""What a PNG says of how it was drawn: JSON under ``fewstep``, and the ``parameters`` that other programs read.

Of the user's machine nothing is written: a model or a LoRA that lies in a folder is named by the last part of its path.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import fewstep
from fewstep.sampling.generate import DrawingModel
from fewstep.sampling.request import Drawing

Settings = Mapping[str, Any]
"""How one model's pictures are drawn, every choice made; plain data."""


def model_title(place: str) -> str:
    """A repository id or ``fewstep:digits`` as it is; of a path the last part."""
    if os.path.exists(place):
        place = os.path.abspath(place)
    parts = [part for part in re.split(r"[/\\]", place) if part]
    is_path = os.path.isabs(place) or "\\" in place or place.startswith((".", "~")) or len(parts) > 2
    return parts[-1] if is_path and parts else place


def settings_of(drawing: Drawing, model: DrawingModel) -> Settings:
    """What decides a picture of ``drawing`` besides its prompt and its seed.

    Args:
        model: The opened model, which knows what the request leaves to it.
    """
    spec, config = drawing.model, model.adapter.config
    grid = model.chosen_sigmas(spec.steps, spec.sigmas)
    scale = model.default_guidance_scale() if spec.guidance_scale is None else spec.guidance_scale
    return {
        "model": model_title(spec.model),
        "negative_prompt": drawing.negative_prompt,
        "steps": len(grid),
        # a time shift rounds level 1 to the neighbour of 1, which nobody could give back as a sigma
        "sigmas": [min(round(level, 7), 1.0) for level in grid.tolist()],
        "step": "euler" if model.facts is None else model.facts.step,
        "guidance_scale": scale,
        "height": config.height,
        "width": config.width,
        **({} if model.adapter.frames is None else {"frames": model.adapter.frames}),
        "lora": [{"file": model_title(one.file or one.path), "scale": one.scale} for one in drawing.loras],
        "dtype": spec.dtype,
    }


def picture_texts(settings: Settings, prompt: str, seed: int) -> dict[str, str]:
    """The text chunks of one picture, by key."""
    return {
        "parameters": _parameters(settings, prompt, seed),
        "fewstep": _json({"prompt": prompt, "seed": seed, **settings}),
    }


def sheet_texts(models: Sequence[Settings], prompts: Sequence[str], seed: int) -> dict[str, str]:
    """The text chunk of a sheet: the prompts in the order of its pictures, and each model's settings."""
    return {"fewstep": _json({"prompts": list(prompts), "seed": seed, "models": list(models)})}


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps({"fewstep": fewstep.__version__, **facts})


def _parameters(settings: Settings, prompt: str, seed: int) -> str:
    """Prompt, negative prompt and settings as AUTOMATIC1111's web UI writes them."""
    loras = [f"{one['file']}:{one['scale']:g}" for one in settings["lora"]]
    values = {
        "Steps": settings["steps"],
        "Sampler": "Euler" if settings["step"] == "euler" else "LCM",
        "CFG scale": f"{settings['guidance_scale']:g}",
        "Seed": seed,
        "Size": f"{settings['width']}x{settings['height']}",
        "Model": settings["model"],
        **({"Lora": ", ".join(loras)} if loras else {}),
        "Version": f"fewstep {fewstep.__version__}",
    }
    negative = settings["negative_prompt"]
    lines = [prompt, *([] if not negative else [f"Negative prompt: {negative}"])]
    return "\n".join([*lines, ", ".join(f"{name}: {_quoted(str(value))}" for name, value in values.items())])


def _quoted(value: str) -> str:
    """A value in which a comma or a colon would end it stands in quotes, as the web UI writes it."""
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value
