"""One picture drawn by the student of a run, and again by what was written of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.devices import device_with_room
from fewstep.errors import CheckpointError
from fewstep.sampling.embedding import PromptEmbedder
from fewstep.sampling.sampler import noise_batch, sample_latents, step_noise_batch, velocity_field

_SAME = 1e-3
"""Of two drawings with the same float32 weights: the latents' size times what rounding may add up to in many steps."""
_ROOM = 1.3
"""Memory that drawing takes, over the network's own."""


@dataclass(frozen=True)
class Rendering:
    """Clean latents, and pixels from 0 to 255."""

    latents: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class Difference:
    """Between two drawings.

    Attributes:
        latents: Root mean square of the difference, over that of the student's latents.
        pixels, largest_pixel: Of 255, on average and at most.
    """

    latents: float
    pixels: float
    largest_pixel: float

    @classmethod
    def between(cls, ours: Rendering, theirs: Rendering) -> "Difference":
        latents = (theirs.latents - ours.latents).square().mean().sqrt() / ours.latents.square().mean().sqrt()
        pixels = (theirs.pixels - ours.pixels).abs()
        return cls(float(latents), float(pixels.mean()), float(pixels.max()))

    def __str__(self) -> str:
        return (
            f"latents differ by {self.latents:.2g} of their size, pixels by {self.pixels:.2g} of 255 on average and "
            f"{self.largest_pixel:.2g} at most"
        )


class Specimen:
    """A picture to compare networks by: its prompt, embedded once, its noise, and the VAE.

    Only one network is ever in memory, and none while the text encoders are.

    Args:
        adapter: The teacher's.
        facts: What ``fewstep.json`` says of the student.
    """

    def __init__(self, adapter: ModelAdapter, facts: ModelFacts, prompt: str) -> None:
        self._adapter, self._facts, self._prompt = adapter, facts, prompt
        self._vae = adapter.load_vae()
        parts: dict[str, Any] = {adapter.network_component: None, "vae": self._vae}
        pipeline = adapter.load_pipeline(**parts)
        self._cond = PromptEmbedder(adapter, pipeline, torch.device("cpu")).conditioning([prompt])

    @torch.no_grad()
    def by(self, network: nn.Module) -> Rendering:
        """What ``network`` draws; it is back on the CPU afterwards.

        Raises:
            CheckpointError: Numbers that are not finite.
        """
        adapter, facts, prompts = self._adapter, self._facts, [self._prompt]
        shape = adapter.latent_shape(adapter.config.height, adapter.config.width)
        sigmas = torch.tensor(facts.sigmas, dtype=torch.float32)
        again = None if facts.step == "euler" else step_noise_batch(prompts, [0], shape, steps=len(sigmas))
        device = torch.device(device_with_room(_ROOM * sum(value.nbytes for value in network.parameters())))
        try:
            field = velocity_field(adapter, network.to(device), self._cond.to(device), None, guidance_scale=None)
            noise = noise_batch(prompts, [0], shape).to(device)
            latents = sample_latents(field, noise, sigmas, initial_scale=adapter.initial_scale, step_noise=again).cpu()
        finally:
            network.to("cpu")
        if not bool(latents.isfinite().all()):
            raise CheckpointError(
                "The student draws numbers that are not finite, so it is not exported; look at the run's last sheets, "
                "and export an earlier step with --step."
            )
        return Rendering(latents, adapter.decode(self._vae, latents).float() * 255)

    def require_same(self, drawn: Rendering, network: nn.Module, *, exact: bool, where: Path) -> Difference:
        """The difference that reading the written files makes.

        Args:
            drawn: By the student of the run.
            network: As it is read again.
            exact: The written weights are the student's own.

        Raises:
            CheckpointError: They are, and yet draw something else.
        """
        difference = Difference.between(drawn, self.by(network))
        if exact and not difference.latents <= _SAME:
            raise CheckpointError(
                f"What was written into {where} does not draw what the student of the run draws: {difference}. Nothing "
                "is kept; this is a fault of fewstep or of the disk, please report it."
            )
        return difference
