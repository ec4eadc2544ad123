"""From prompts and seeds to pictures, with our own loop; loaded.py says where the parts of the model come from."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.finite import require_finite
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.using import using
from fewstep.bounds import GuidanceScale, Seed, require_within
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError
from fewstep.prompts.text import require_prompts
from fewstep.sampling.embedding import PromptEmbedder
from fewstep.sampling.pictures import to_pil
from fewstep.sampling.sampler import (
    noise_batch,
    require_levels,
    sample_latents,
    step_noise_batch,
    teacher_sigmas,
    uniform_levels,
    velocity_field,
)

Advance = Callable[[int], None]
"""Told after every network call how many pictures made a step."""


def _ignore(pictures: int) -> None:
    """Tell nobody."""


class DrawingModel(ABC):
    """A backbone that draws. Which of its parts are in memory, and when, is for its subclasses to say.

    Args:
        adapter: The backbone.
        pipeline_class: Of diffusers; its call states defaults.
        facts: What the folder says about its sampling, when it says something.
        few_steps: Steps of a model that is known to be distilled, though its folder does not say so.
        device: Where the parts compute.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        pipeline_class: type[Any],
        *,
        facts: ModelFacts | None = None,
        few_steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.adapter = adapter
        self.pipeline_class = pipeline_class
        self.facts = facts
        self.few_steps = few_steps
        self.device = torch.device(device)

    @abstractmethod
    def _text_encoders(self) -> PromptEmbedder: ...

    @abstractmethod
    def _denoiser(self) -> nn.Module: ...

    @abstractmethod
    def _decoder(self) -> nn.Module: ...

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.adapter.latent_shape(self.adapter.config.height, self.adapter.config.width)

    def sigmas(self, steps: int) -> Float[Tensor, "k"]:
        """The grid of ``steps`` network calls: the one this model was trained for where the lengths agree."""
        if self.facts is not None and self.facts.sigmas is not None and len(self.facts.sigmas) == steps:
            return torch.tensor(self.facts.sigmas, dtype=torch.float32)
        if self.facts is not None and self.facts.role == "student":
            return self.adapter.to_sigma(uniform_levels(steps))
        return teacher_sigmas(self.adapter, steps)

    def default_steps(self) -> int:
        """What the folder states or the model is known for; a plain diffusers folder has its own pipeline's default."""
        if self.facts is not None and self.facts.sigmas is not None:
            return len(self.facts.sigmas)
        stated = self.few_steps if self.facts is None else self.facts.steps
        return int(stated or inspect.signature(self.pipeline_class.__call__).parameters["num_inference_steps"].default)

    def default_guidance_scale(self) -> float:
        """What the folder states; a plain diffusers folder is drawn with its own pipeline's default."""
        if self.facts is not None:
            return self.facts.guidance_scale
        if self.few_steps is not None:
            return self.adapter.guidance.off
        scale = self.adapter.guidance.default_scale(self.pipeline_class)
        if scale is None:
            raise ConfigError(
                f"{self.adapter.config.model}, a {self.pipeline_class.__name__}, has no guidance scale of its own; "
                "state one (--guidance-scale)."
            )
        return scale

    def chosen_sigmas(
        self, steps: int | None = None, sigmas: Sequence[float] | Tensor | None = None
    ) -> Float[Tensor, "k"]:
        """The grid that is drawn on: ``sigmas`` as they are, or the model's own of ``steps``, None being its number.

        Raises:
            ConfigError: The sigmas do not descend in (0, 1].
        """
        if sigmas is None:
            return self.sigmas(self.default_steps() if steps is None else steps)
        grid = torch.as_tensor(sigmas, dtype=torch.float32)
        require_levels(grid.tolist())
        return grid

    @torch.no_grad()
    def latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        noise: Float[Tensor, "n *latent"] | None = None,
        batch: int = 16,
        advance: Advance = _ignore,
    ) -> Float[Tensor, "n *latent"]:
        """Draw clean latents, on the CPU.

        Args:
            prompts: One per picture.
            seeds: One per picture; together with the prompt it names the picture's noise.
            steps: Network calls per picture, twice as many with guidance; None is the model's own number. Ignored when
                ``sigmas`` is given.
            sigmas: Noise levels as the network sees them, after any time shift, without the final 0.
            guidance_scale: As the pipeline counts it; None is the model's own.
            negative_prompt: What every picture is guided away from; None is the model's unconditional branch.
            noise: Initial noise instead of the seeds' own.
            batch: Pictures per network call, which changes memory and speed, and of a picture no more than how its
                sums are rounded. With 1 a picture is bit for bit the one that is drawn alone.
            advance: Told of every network call.

        Raises:
            ConfigError: There is a negative prompt, and nothing that it could change; or a value cannot be used.
            CheckpointError: The text encoders or the network give numbers that are not finite.
        """
        require_prompts(prompts)  # before their noise is named by them
        for seed in seeds:
            require_within(seed, "seed", Seed)
        grid = self.chosen_sigmas(steps, sigmas)
        guidance = self.default_guidance_scale() if guidance_scale is None else guidance_scale
        require_within(guidance, "guidance_scale", GuidanceScale)
        if negative_prompt is not None:
            require_use_of_negative_prompt(self.adapter, guidance)
        noise = noise_batch(prompts, seeds, self.latent_shape) if noise is None else noise
        cond, null = self._embedded(prompts, negative_prompt, guidance, alone=batch == 1)
        network = self._denoiser()
        drawn = []
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            field = velocity_field(self.adapter, network, cond.rows(rows), null, guidance_scale=guidance)
            start_noise = noise[rows].to(self.device)
            x0 = sample_latents(
                _told(field, advance),
                start_noise,
                grid,
                initial_scale=self.adapter.initial_scale,
                step_noise=self._step_noise(prompts[rows], seeds[rows], len(grid)),
            )
            require_finite([x0], model=self.adapter.config.model, parts={"network": network})
            drawn.append(x0.cpu())
        return torch.cat(drawn)

    def _embedded(
        self, prompts: Sequence[str], negative_prompt: str | None, guidance: float, *, alone: bool
    ) -> tuple[Conditioning, Conditioning | None]:
        """The prompts' rows and the other branch; text encoders that nobody else holds are gone when this returns."""
        embedder = self._text_encoders()
        # encoders round differently for other neighbours
        cond = embedder.conditioning(prompts, batch=1) if alone else embedder.conditioning(prompts)
        return cond, embedder.unconditional(negative_prompt, guidance_scale=guidance)

    def _step_noise(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Tensor | None:
        if self.facts is None or self.facts.step == "euler":
            return None
        return step_noise_batch(prompts, seeds, self.latent_shape, steps=steps)

    def pixels(self, latents: Float[Tensor, "n *latent"], *, batch: int = 16) -> UInt8[Tensor, "n 3 *size"]:
        """Decode clean latents to 8-bit pictures (n, 3, h, w), or videos (n, 3, f, h, w), on the CPU."""
        vae = self._decoder()
        parts = []
        for start in range(0, len(latents), batch):
            decoded = self.adapter.decode(vae, latents[start : start + batch].to(self.device))
            parts.append((decoded * 255).round().to(torch.uint8).cpu())
        return torch.cat(parts)

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        batch: int = 16,
        advance: Advance = _ignore,
    ) -> list[Any]:
        """Draw PIL images, or of a model of videos the frames of each; the arguments are those of :meth:`latents`."""
        with using(self.adapter.config.model, "draw"):
            latents = self.latents(
                prompts,
                seeds,
                steps=steps,
                sigmas=sigmas,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
                batch=batch,
                advance=advance,
            )
            return to_pil(self.pixels(latents, batch=batch))


def _told(field: Callable[[NoisyLatent], Tensor], advance: Advance) -> Callable[[NoisyLatent], Tensor]:
    def answer(point: NoisyLatent) -> Tensor:
        velocity = field(point)
        advance(len(velocity))
        return velocity

    return answer


def require_use_of_negative_prompt(adapter: ModelAdapter, guidance_scale: float | None) -> None:
    """Raise ConfigError when a negative prompt would change nothing: no other branch, or guidance that is off.

    Args:
        guidance_scale: As the pictures are drawn; None when it is not known yet.
    """
    model = adapter.config.model
    if adapter.guidance.embedded:
        raise ConfigError(
            f"{model} takes its guidance scale as an input of the network and has no unconditional branch, so a "
            "negative prompt has nothing to take the place of; leave it out."
        )
    if guidance_scale == adapter.guidance.off:
        raise ConfigError(
            f"{model} is drawn at guidance scale {guidance_scale:g}, which is off, so a negative prompt would change "
            f"nothing; set a guidance scale above {adapter.guidance.off:g} or leave the negative prompt out."
        )
