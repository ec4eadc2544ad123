"""Sample sheets: the same prompts and seeds drawn by the teacher and by the student as it trains."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fewstep.backbones.protocol import Conditioning, ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.roles.role import Role
from fewstep.sampling.noise import noise_batch
from fewstep.sampling.sampler import sample_latents, teacher_sigmas, velocity_field


class SheetPainter:
    """Draws one PNG per call: a column per prompt, the teacher's row over the student's.

    Args:
        config: The resolved recipe.
        adapter: The backbone.
        vae: Its decoder, on the device of the networks.
        prompts: Prompts of the columns.
        cond: Their embeddings.
        null_cond: The unconditional embedding, one row.
    """

    def __init__(
        self,
        config: RunConfig,
        adapter: ModelAdapter,
        vae: nn.Module,
        prompts: Sequence[str],
        cond: Conditioning,
        null_cond: Conditioning,
    ) -> None:
        self.config = config
        self.adapter = adapter
        self.vae = vae
        self.cond = cond
        self.null_cond = null_cond
        shape = adapter.latent_shape(config.backbone.height, config.backbone.width)
        self.noise = noise_batch(prompts, [config.report.sheet_seed] * len(prompts), shape)
        self._teacher_row: Tensor | None = None

    def paint(self, path: Path, *, student: Role, teacher: Role) -> None:
        """Draw a sheet; the teacher's row is drawn once."""
        device = next(student.network.parameters()).device
        sampling = self.config.sampling
        if self._teacher_row is None:
            sigmas = teacher_sigmas(self.adapter, sampling.teacher_steps)
            self._teacher_row = self._draw(teacher, sigmas, sampling.teacher_guidance_scale, device)
        drawn = self._draw(student, self.adapter.to_sigma(torch.tensor(sampling.levels)), None, device)
        sheet = torch.cat([_row(self._teacher_row), _row(drawn)], dim=1)
        write_png(path, sheet)

    def _draw(self, role: Role, sigmas: Tensor, guidance_scale: float | None, device: torch.device) -> Tensor:
        field = velocity_field(
            self.adapter,
            role.network,
            self.cond.to(device),
            self.null_cond.to(device),
            guidance_scale=guidance_scale,
        )
        with torch.autocast(device.type, dtype=role.compute, enabled=role.compute != torch.float32):
            x0 = sample_latents(field, self.noise.to(device), sigmas, initial_scale=self.adapter.initial_scale)
        # one picture at a time: a decoder at full size needs more memory than the network
        return torch.cat([self.adapter.decode(self.vae, latent[None]).cpu() for latent in x0])


def _row(images: Tensor) -> Tensor:
    """Images side by side: (b, 3, h, w) -> (3, h, b w)."""
    return torch.cat(list(images), dim=2)


def write_png(path: Path, image: Tensor) -> None:
    """Write a (3, h, w) picture in [0, 1], whole or not at all."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    Image.fromarray(pixels).save(unfinished, format="PNG")
    unfinished.replace(path)
