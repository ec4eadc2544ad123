"""Draw with a stock diffusers pipeline and its own scheduler: published students, LoRAs, and what has no adapter."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from fewstep.backbones.finite import require_finite
from fewstep.errors import ConfigError
from fewstep.sampling.noise import generator_for
from fewstep.sampling.pictures import to_pil


def draw_stock(
    pipeline: Any,
    model: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    sigmas: Sequence[float] | None,
    guidance_scale: float | None,
    height: int,
    width: int,
) -> list[Image.Image]:
    """Draw one picture per prompt and seed, each with a generator of its own.

    Args:
        model: The pipeline's name, for messages.

    Raises:
        CheckpointError: A picture is not made of finite numbers.
    """
    taken = inspect.signature(type(pipeline).__call__).parameters
    call: dict[str, Any] = {
        "num_inference_steps": steps,
        "height": height,
        "width": width,
        # a generator per picture: its noise, and what its scheduler adds on the way, depend on no neighbour
        "generator": [generator_for(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)],
    }
    if guidance_scale is not None:
        call["guidance_scale"] = guidance_scale
    if sigmas is not None:
        call["sigmas"] = list(sigmas)
    if "enable_prompt_rewrite" in taken:
        call["enable_prompt_rewrite"] = False  # the picture is of the prompt that it is scored against
    refused = sorted(call.keys() - taken.keys() - {"height", "width"})
    if refused:
        raise ConfigError(f"A {type(pipeline).__name__} takes no {' and no '.join(refused)}; leave it out of --model.")
    call = {name: value for name, value in call.items() if name in taken}
    try:
        pixels = torch.from_numpy(pipeline(prompt=list(prompts), output_type="np", **call).images)
    except ValueError as error:
        if sigmas is None:
            raise
        # a scheduler says only when it is asked that it takes no noise levels of others
        raise ConfigError(
            f"The {type(pipeline.scheduler).__name__} of this model takes no sigmas ({' '.join(str(error).split())}); "
            "give steps instead."
        ) from error
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    require_finite([pixels], model=model, parts=parts)
    return to_pil((pixels * 255).round().to(torch.uint8).permute(0, 3, 1, 2))
