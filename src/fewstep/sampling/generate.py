"""From prompts to pictures: a pipeline folder, opened once and sampled with our own loop."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.finite import require_finite
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.refused import few_steps
from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.source import open_checkpoint
from fewstep.backbones.using import using
from fewstep.bounds import GuidanceScale, Seed, Steps, require_within
from fewstep.devices import fastest_device
from fewstep.errors import ConfigError, shown
from fewstep.prompts.text import require_prompt, require_prompts
from fewstep.sampling.embedding import PromptEmbedder
from fewstep.sampling.pictures import (
    picture_paths,
    require_medium,
    require_writable,
    save_picture,
    save_video,
    to_pil,
)
from fewstep.sampling.sampler import (
    noise_batch,
    require_levels,
    sample_latents,
    step_noise_batch,
    teacher_sigmas,
    uniform_levels,
    velocity_field,
)


class TextToImage:
    """A backbone with its weights, ready to draw.

    Args:
        adapter: The backbone.
        network: Its denoising network, student or teacher, in eval mode.
        pipeline: A diffusers pipeline that holds the text encoders and the VAE; its network is not used.
        facts: What the folder says about its sampling, when it says something.
        few_steps: Steps of a model that is known to be distilled, though its folder does not say so.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        network: nn.Module,
        pipeline: Any,
        *,
        facts: ModelFacts | None = None,
        few_steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.adapter = adapter
        self.network = network.to(device)
        self.pipeline = pipeline.to(device)
        self.facts = facts
        self.few_steps = few_steps
        self.device = torch.device(device)
        self.embedder = PromptEmbedder(adapter, self.pipeline, self.device)

    @property
    def vae(self) -> nn.Module:
        vae: nn.Module = self.pipeline.vae
        return vae

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
        return int(stated or inspect.signature(type(self.pipeline).__call__).parameters["num_inference_steps"].default)

    def default_guidance_scale(self) -> float:
        """What the folder states; a plain diffusers folder is drawn with its own pipeline's default."""
        if self.facts is not None:
            return self.facts.guidance_scale
        if self.few_steps is not None:
            return self.adapter.guidance.off
        scale = self.adapter.guidance.default_scale(type(self.pipeline))
        if scale is None:
            raise ConfigError(
                f"{self.adapter.config.model}, a {type(self.pipeline).__name__}, has no guidance scale of its own; "
                "state one (--guidance-scale)."
            )
        return scale

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
            batch: Pictures per network call; changes nothing but memory and speed.

        Raises:
            ConfigError: There is a negative prompt, and nothing that it could change; or a value cannot be used.
            CheckpointError: The text encoders or the network give numbers that are not finite.
        """
        require_prompts(prompts)  # before their noise is named by them
        for seed in seeds:
            require_within(seed, "seed", Seed)
        number = self.default_steps() if steps is None else steps
        grid = self.sigmas(number) if sigmas is None else torch.as_tensor(sigmas, dtype=torch.float32)
        guidance = self.default_guidance_scale() if guidance_scale is None else guidance_scale
        if sigmas is not None:
            require_levels(grid.tolist())
        require_within(guidance, "guidance_scale", GuidanceScale)
        if negative_prompt is not None:
            _require_use_of_negative_prompt(self.adapter, guidance)
        noise = noise_batch(prompts, seeds, self.latent_shape) if noise is None else noise
        cond = self.embedder.conditioning(prompts)
        null = self.embedder.unconditional(negative_prompt, guidance_scale=guidance)
        drawn = []
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            field = velocity_field(self.adapter, self.network, cond.rows(rows), null, guidance_scale=guidance)
            start_noise = noise[rows].to(self.device)
            x0 = sample_latents(
                field,
                start_noise,
                grid,
                initial_scale=self.adapter.initial_scale,
                step_noise=self._step_noise(prompts[rows], seeds[rows], len(grid)),
            )
            require_finite([x0], model=self.adapter.config.model, parts={"network": self.network})
            drawn.append(x0.cpu())
        return torch.cat(drawn)

    def _step_noise(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Tensor | None:
        if self.facts is None or self.facts.step == "euler":
            return None
        return step_noise_batch(prompts, seeds, self.latent_shape, steps=steps)

    def pixels(self, latents: Float[Tensor, "n *latent"], *, batch: int = 16) -> UInt8[Tensor, "n 3 *size"]:
        """Decode clean latents to 8-bit pictures (n, 3, h, w), or videos (n, 3, f, h, w), on the CPU."""
        parts = []
        for start in range(0, len(latents), batch):
            decoded = self.adapter.decode(self.vae, latents[start : start + batch].to(self.device))
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
            )
            return to_pil(self.pixels(latents, batch=batch))


def load_model(
    model: str | Path, device: torch.device | str = "auto", *, dtype: torch.dtype = torch.float32
) -> TextToImage:
    """Open a pipeline folder, a repository id or ``fewstep:digits`` for drawing.

    A folder without ``fewstep.json`` works as well: the adapter follows from its pipeline class.

    Args:
        device: A torch device, or ``auto`` for the fastest one there is.
        dtype: Of the network and the text encoders; the VAE stays in float32.
    """
    adapter = create_model_adapter(model, as_teacher=False)
    adapter.compute_dtype = dtype
    network = adapter.load_network(dtype=dtype)
    vae = adapter.load_vae()
    pipeline = adapter.load_pipeline(dtype=dtype, **{adapter.network_component: None, "vae": vae})
    return TextToImage(
        adapter,
        network,
        pipeline,
        facts=open_checkpoint(str(model)).facts,
        few_steps=few_steps(str(model)),
        device=fastest_device() if device == "auto" else device,
    )


def _require_use_of_negative_prompt(adapter: ModelAdapter, guidance_scale: float | None) -> None:
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


def _texts(prompts: str | Sequence[str]) -> list[str]:
    if not isinstance(prompts, str | Sequence):
        raise ConfigError(f"The prompts are {shown(prompts)}; give a text or a list of texts.")
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise ConfigError("There is no prompt to draw; give at least one.")
    return require_prompts(texts)


def sample(
    model: str | Path,
    prompts: str | Sequence[str],
    *,
    steps: int | None = None,
    seed: int = 0,
    guidance_scale: float | None = None,
    negative_prompt: str | None = None,
    output: str | Path | None = None,
    device: torch.device | str = "auto",
) -> list[Any]:
    """Draw one picture or video per prompt with an exported student, a teacher or any supported diffusers folder.

    Args:
        model: A folder, a Hugging Face repository id, or ``fewstep:digits``.
        steps: Network calls per picture; None is the model's own number, and a student's uses exactly the grid it was
            trained for.
        seed: Names the noise together with the prompt: the same prompt and seed give the same picture in any batch.
        guidance_scale: 1 is off; None is the model's own.
        negative_prompt: What every picture is guided away from.
        output: A ``.png`` file to write, or of videos a ``.gif`` or ``.mp4``; with several prompts, ``name-0000.png``
            and so on beside it.

    Returns:
        The pictures in the order of the prompts, PIL images; of a model of videos, the frames of each.

    Raises:
        ConfigError: The model cannot be opened, there is no prompt, a value cannot be used, a negative prompt would
            change nothing, or ``output`` cannot be written.
        CheckpointError: A part of the model gives numbers that are not finite; no picture is written.
    """
    texts = _texts(prompts)
    if negative_prompt is not None:
        require_prompt(negative_prompt, place="The negative prompt")
    if steps is not None:
        require_within(steps, "steps", Steps)
    require_within(seed, "seed", Seed)
    if guidance_scale is not None:
        require_within(guidance_scale, "guidance_scale", GuidanceScale)
    paths = picture_paths(output, len(texts)) if output is not None else []
    require_writable(paths)
    adapter = create_model_adapter(model, as_teacher=False)
    if negative_prompt is not None:  # before weights are loaded; what the model's own scale is shows afterwards
        _require_use_of_negative_prompt(adapter, guidance_scale)
    require_medium(paths, model=str(model), frame_rate=adapter.frame_rate)
    loaded = load_model(model, device)
    images = loaded.images(
        texts, [seed] * len(texts), steps=steps, guidance_scale=guidance_scale, negative_prompt=negative_prompt
    )
    for path, image in zip(paths, images, strict=bool(paths)):
        if adapter.frame_rate is None:
            save_picture(image, path)
        else:
            save_video(image, path, frame_rate=adapter.frame_rate)
    return images
