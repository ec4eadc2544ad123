"""Sample sheets: the same prompts and seeds drawn by the teacher and by the student as it trains."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.files import explain_write_errors, whole_file
from fewstep.roles.role import Role
from fewstep.sampling.sampler import noise_batch, sample_latents, teacher_sigmas, velocity_field


class RoleSampler:
    """Draws with a role's network as it is, spread or not; every process of the run has to draw along.

    Args:
        adapter: The backbone.
        vae: Its decoder, on ``device``; None at a process that only helps to draw.
        null_cond: The unconditional embedding, one row.
        device: Where the networks compute.
    """

    def __init__(
        self, adapter: ModelAdapter, vae: nn.Module | None, null_cond: Conditioning, device: torch.device
    ) -> None:
        self.adapter = adapter
        self.vae = vae
        self.null_cond = null_cond
        self.device = device

    def noise(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """The initial noise of some pictures."""
        size = self.adapter.config
        return noise_batch(prompts, seeds, self.adapter.latent_shape(size.height, size.width))

    @torch.no_grad()
    def sample(
        self, role: Role, cond: Conditioning, noise: Tensor, sigmas: Tensor, guidance_scale: float | None = None
    ) -> Tensor:
        """Draw pixels in [0, 1] on the CPU, (b, 3, h, w) or of videos (b, 3, f, h, w); empty without a decoder."""
        null_cond = self.null_cond.to(self.device)
        field = velocity_field(
            self.adapter, role.network, cond.to(self.device), null_cond, guidance_scale=guidance_scale
        )
        with role.acting(self.device):
            x0 = sample_latents(field, noise.to(self.device), sigmas, initial_scale=self.adapter.initial_scale)
        if self.vae is None:
            return torch.empty(0)
        # one picture at a time: a decoder at full size needs more memory than the network
        return torch.cat([self.adapter.decode(self.vae, latent[None]).cpu() for latent in x0])


class SheetPainter:
    """Draws one PNG per call: a column per prompt, the teacher's row over the student's.

    Args:
        config: The resolved recipe.
        sampler: Draws the pictures.
        prompts: Prompts of the columns.
        cond: Their embeddings.
    """

    def __init__(self, config: RunConfig, sampler: RoleSampler, prompts: Sequence[str], cond: Conditioning) -> None:
        self.config = config
        self.sampler = sampler
        self.cond = cond
        self.noise = sampler.noise(prompts, [config.report.sheet_seed] * len(prompts))
        self._teacher_row: Tensor | None = None

    def paint(self, path: Path, *, student: Role, teacher: Role) -> None:
        """Draw a sheet; the teacher's row is drawn once. Every process of the run has to call it; one writes."""
        sampling, adapter = self.config.sampling, self.sampler.adapter
        if self._teacher_row is None:
            sigmas = teacher_sigmas(adapter, sampling.teacher_steps)
            guidance_scale = sampling.teacher_guidance_scale
            self._teacher_row = self.sampler.sample(teacher, self.cond, self.noise, sigmas, guidance_scale)
        drawn = self.sampler.sample(student, self.cond, self.noise, adapter.to_sigma(torch.tensor(sampling.levels)))
        if len(drawn):
            _write_png(path, torch.cat([_row(self._teacher_row), _row(drawn)], dim=1))


def _row(images: Tensor) -> Tensor:
    """Pictures side by side: (b, 3, h, w) -> (3, h, b w); of each video three frames, the first to the last."""
    if images.ndim > 4:
        frames = images.shape[2]
        images = images[:, :, [0, frames // 2, frames - 1]].transpose(1, 2).flatten(0, 1)
    return torch.cat(list(images), dim=2)


def _write_png(path: Path, image: Tensor) -> None:
    """Write a (3, h, w) picture in [0, 1], whole or not at all."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            Image.fromarray(pixels).save(unfinished, format="PNG")
