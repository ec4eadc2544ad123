"""One model, loaded, drawing pictures; and how many network calls each picture cost."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.finite import require_finite
from fewstep.backbones.source import Checkpoint, open_checkpoint
from fewstep.backbones.stock import guidance_of, load_stock
from fewstep.devices import DTYPES
from fewstep.errors import ConfigError
from fewstep.evaluation.models import ModelEntry, Sampling
from fewstep.sampling.loaded import TextToImage, load_model
from fewstep.sampling.model_spec import ModelSpec
from fewstep.sampling.pictures import Drawn, to_pil
from fewstep.sampling.sampler import generator_for


class _CallCount:
    """Counts the samples that go through a network; guidance shows as it is, twice as many."""

    def __init__(self, network: nn.Module) -> None:
        self.samples = 0
        self._handle = network.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim > 1)
        self.samples += len(first)

    def stop(self) -> None:
        self._handle.remove()


class Sampler(ABC):
    """A model that is ready to draw."""

    def __init__(self, sampling: Sampling, network: nn.Module) -> None:
        self.sampling = sampling
        self._network = network

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int) -> tuple[list[Drawn], float]:
        """Draw one picture or clip per prompt and seed.

        Args:
            steps: The sampling's own number, or another one for a comparison of numbers of steps.

        Returns:
            The pictures or clips, and the network calls that each of them cost.

        Raises:
            ConfigError: The pipeline made clips of another number of frames than the sampling says.
        """
        count = _CallCount(self._network)
        try:
            images = self._sample(prompts, seeds, steps)
        finally:
            count.stop()
        for image in images:
            if isinstance(image, list) and len(image) != self.sampling.frames:
                raise ConfigError(
                    f"A model makes clips of {len(image)} frames where {self.sampling.frames} were asked for; ask for "
                    f"what it makes: --model MODEL,frames={len(image)}."
                )
        return images, count.samples / len(images)

    @abstractmethod
    def _sample(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Drawn]: ...


class _OwnSampler(Sampler):
    """Draws with our Euler loop, on the grid the model was made for."""

    def __init__(self, sampling: Sampling, model: TextToImage) -> None:
        super().__init__(sampling, model.network)
        self._model = model

    def _sample(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Drawn]:
        stated = self.sampling.sigmas if steps == self.sampling.steps else None
        return self._model.images(
            prompts,
            seeds,
            steps=steps,
            sigmas=stated,
            guidance_scale=self.sampling.guidance_scale,
            batch=len(prompts),
        )


class _StockSampler(Sampler):
    """Draws with the pipeline that the folder names, and its scheduler."""

    def __init__(self, sampling: Sampling, pipeline: Any, checkpoint: Checkpoint) -> None:
        network = getattr(pipeline, "transformer", None)
        super().__init__(sampling, pipeline.unet if network is None else network)
        self._pipeline = pipeline
        self._model = checkpoint.model
        self._guidance = guidance_of(checkpoint)

    @torch.no_grad()
    def _sample(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Drawn]:
        chosen = self.sampling
        scale = chosen.guidance_scale
        return _sample_stock(
            self._pipeline,
            self._model,
            prompts,
            seeds,
            steps=steps,
            sigmas=chosen.sigmas if steps == chosen.steps else None,
            guided={} if scale is None else self._guidance.call(scale, num_prompts=len(prompts)),
            height=chosen.height,
            width=chosen.width,
            frames=chosen.frames,
        )


def open_sampler(spec: ModelSpec, entry: ModelEntry, device: torch.device, *, prompts: Sequence[str] = ()) -> Sampler:
    """Load a model's weights.

    Args:
        prompts: All of the task, whichever are left to be drawn: each is embedded once, among the same neighbours.
    """
    sampling = entry.sampling
    assert sampling.dtype is not None, f"{entry.name} is no model that could draw"
    dtype = DTYPES[sampling.dtype]
    if sampling.sampler == "own":
        model = load_model(
            spec.model,
            device,
            dtype=dtype,
            height=sampling.height,
            width=sampling.width,
            frames=sampling.frames,
        )
        model.embedder.expect(prompts)
        return _OwnSampler(sampling, model)
    checkpoint = open_checkpoint(spec.model)
    pipeline = load_stock(checkpoint, dtype=dtype, lora=spec.lora, lora_scale=spec.lora_scale)
    return _StockSampler(sampling, pipeline.to(device), checkpoint)


def _sample_stock(
    pipeline: Any,
    model: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    sigmas: Sequence[float] | None,
    guided: Mapping[str, Any],
    height: int,
    width: int,
    frames: int | None,
) -> list[Drawn]:
    """Draw one picture or clip per prompt and seed, each with a generator of its own.

    Args:
        model: The pipeline's name, for messages.
        guided: The arguments of the call that guide.

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
    scheduler = pipeline.scheduler
    if scheduler.config.get("stochastic_sampling"):
        # most pipelines keep their generators from this scheduler, which would then ask the process's own
        scheduler.step = partial(type(scheduler).step, scheduler, generator=call["generator"])
    call |= guided
    if frames is not None:
        call["num_frames"] = frames
    if sigmas is not None:
        call["sigmas"] = list(sigmas)
    if "enable_prompt_rewrite" in taken:
        call["enable_prompt_rewrite"] = False  # the picture is of the prompt that it is scored against
    refused = sorted(call.keys() - taken.keys() - {"height", "width"})
    if refused:
        raise ConfigError(f"A {type(pipeline).__name__} takes no {' and no '.join(refused)}; leave it out of --model.")
    call = {name: value for name, value in call.items() if name in taken}
    try:
        output = pipeline(prompt=list(prompts), output_type="np", **call)
        pixels = torch.from_numpy(output.images if frames is None else output.frames)
    except ValueError as error:
        if sigmas is None:
            raise
        # a scheduler says only when it is asked that it takes no noise levels of others
        raise ConfigError(
            f"The {type(pipeline.scheduler).__name__} of this model takes no sigmas ({' '.join(str(error).split())}); "
            "give steps instead."
        ) from error
    finally:
        vars(scheduler).pop("step", None)
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    require_finite([pixels], model=model, parts=parts)
    return to_pil((pixels * 255).round().to(torch.uint8).movedim(-1, 1))
