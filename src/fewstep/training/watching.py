"""What looks at the student while it trains: sample sheets and metrics, at their updates.

All processes draw, one paints or measures, and all are told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.data.embeddings import EmbeddingCache
from fewstep.distributed.sharding import settle
from fewstep.distributed.world import World
from fewstep.files import explain_write_errors, whole_file
from fewstep.roles.averaging import swapped
from fewstep.roles.role import Role
from fewstep.runs.places import sheet_name
from fewstep.sampling.pictures import to_pil
from fewstep.sampling.sampler import noise_batch, sample_latents, step_noise_batch, teacher_sigmas, velocity_field
from fewstep.scores.pictures import three_frames
from fewstep.training.trainer import Trainer

if TYPE_CHECKING:
    from fewstep.evaluation.during_training import Measurement, TrainingEvaluation


def due(updates: int, every: int | None) -> bool:
    """Whether something that comes every so many student updates comes now; None is never."""
    return every is not None and updates % every == 0


@dataclass(frozen=True)
class Watchers:
    """What a run has of them."""

    painters: "Mapping[str, _SheetPainter]"
    """By what stands behind the name of its files: nothing, or a size where there are several."""
    evaluation: "_StudentEvaluation | None"

    def look(self, trainer: Trainer, sheets: Path) -> "Measurement | None":
        """Paint and measure what is due after a student update; every process of the run has to call it.

        Args:
            sheets: Folder of the sheets.

        Returns:
            What was measured, or None.
        """
        updates = trainer.student_updates
        if self.painters and due(updates, trainer.config.report.sheet_every):
            with _averaged(trainer) as student:
                for size, painter in self.painters.items():
                    path = sheets / sheet_name(updates, size)
                    painter.paint(path, student=student, teacher=trainer.roles.teacher)
        if self.evaluation is None or not due(updates, self.evaluation.every):
            return None
        with _averaged(trainer) as student:
            return self.evaluation.measure(student, trainer.world, update=updates)


def prepare_watchers(
    config: RunConfig, adapter: ModelAdapter, prompts: Sequence[str], embeddings: EmbeddingCache, run: Path
) -> Callable[[World], Watchers]:
    """What a recipe asks to look at its student; metrics are checked at once, before a network is loaded.

    Args:
        run: The run's folder.

    Returns:
        Makes them, on every process of the run; the main one loads the decoder.

    Raises:
        ConfigError: A metric of the recipe cannot be used.
    """
    evaluation = None
    if config.evaluation is not None:
        from fewstep.evaluation.during_training import TrainingEvaluation

        evaluation = TrainingEvaluation(config.evaluation, prompts, run / "evaluation", frames=adapter.frames)

    def with_decoder(world: World) -> Watchers:
        if config.report.sheet_every is None and evaluation is None:
            return Watchers({}, None)
        vae = adapter.load_vae(dtype=torch.float32).to(world.device) if world.is_main else None
        samplers = {
            f"-{height}x{width}" if config.backbone.sizes else "": RoleSampler(
                adapter.at_size(height, width), vae, embeddings.null, world.device
            )
            for height, width in config.backbone.training_sizes
        }
        painters = {}
        if config.report.sheet_every is not None:
            chosen = spread_out(len(prompts), config.report.sheet_prompts)
            shown, cond = [prompts[i] for i in chosen], embeddings.batch(chosen)
            painters = {size: _SheetPainter(config, sampler, shown, cond) for size, sampler in samplers.items()}
        if evaluation is None:
            return Watchers(painters, None)
        own = RoleSampler(adapter, vae, embeddings.null, world.device)
        return Watchers(painters, _StudentEvaluation(config, own, evaluation, prompts, embeddings))

    return with_decoder


def spread_out(prompts: int, count: int) -> list[int]:
    """Indices of at most ``count`` prompts, evenly over all of them."""
    count = min(count, prompts)
    return list(range(0, prompts, max(1, prompts // count))[:count])


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
        return noise_batch(prompts, seeds, self._latent_shape)

    def step_noise(self, prompts: Sequence[str], seeds: Sequence[int], config: RunConfig) -> Tensor | None:
        """What the student's steps re-noise some pictures with; None where a recipe has Euler steps."""
        if config.simulation.step == "euler":
            return None
        return step_noise_batch(prompts, seeds, self._latent_shape, steps=len(config.sampling.levels))

    @property
    def _latent_shape(self) -> tuple[int, ...]:
        return self.adapter.latent_shape(self.adapter.config.height, self.adapter.config.width)

    @torch.no_grad()
    def pixels(self, x0: Tensor) -> Tensor:
        """Decode latents to [0, 1] on the CPU, (b, 3, h, w) or of videos (b, 3, f, h, w); empty without a decoder."""
        if self.vae is None:
            return torch.empty(0)
        # one picture at a time: a decoder at full size needs more memory than the network
        return torch.cat([self.adapter.decode(self.vae, latent[None]).cpu() for latent in x0])

    @torch.no_grad()
    def latents(
        self,
        role: Role,
        cond: Conditioning,
        noise: Tensor,
        sigmas: Tensor,
        guidance_scale: float | None = None,
        step_noise: Tensor | None = None,
    ) -> Tensor:
        """Draw clean latents, in scaled units, where the networks compute."""
        null_cond = self.null_cond.to(self.device)
        field = velocity_field(
            self.adapter, role.network, cond.to(self.device), null_cond, guidance_scale=guidance_scale
        )
        with role.acting(self.device):
            scale = self.adapter.initial_scale
            return sample_latents(field, noise.to(self.device), sigmas, initial_scale=scale, step_noise=step_noise)


class _SheetPainter:
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
        seeds = [config.report.sheet_seed] * len(prompts)
        self.noise = sampler.noise(prompts, seeds)
        self.step_noise = sampler.step_noise(prompts, seeds, config)
        self._teacher_row: Tensor | None = None

    def paint(self, path: Path, *, student: Role, teacher: Role) -> None:
        """Draw a sheet; the teacher's row is drawn once. Every process of the run has to call it; one writes."""
        sampling, adapter = self.config.sampling, self.sampler.adapter
        if self._teacher_row is None:
            sigmas = teacher_sigmas(adapter, sampling.teacher_steps)
            guidance_scale = sampling.teacher_guidance_scale
            x0 = self.sampler.latents(teacher, self.cond, self.noise, sigmas, guidance_scale)
            self._teacher_row = self.sampler.pixels(x0)
        sigmas = adapter.to_sigma(torch.tensor(sampling.levels))
        drawn = self.sampler.pixels(
            self.sampler.latents(student, self.cond, self.noise, sigmas, step_noise=self.step_noise)
        )
        if len(drawn):
            _write_png(path, torch.cat([_row(self._teacher_row), _row(drawn)], dim=1))


class _StudentEvaluation:
    """Draws the pictures that a :class:`TrainingEvaluation` asks for, and has them measured.

    Args:
        config: The resolved recipe.
        sampler: Draws.
        evaluation: The metrics.
        prompts: The run's prompts; the evaluation uses the first of them.
        embeddings: Their embeddings.
    """

    def __init__(
        self,
        config: RunConfig,
        sampler: RoleSampler,
        evaluation: "TrainingEvaluation",
        prompts: Sequence[str],
        embeddings: EmbeddingCache,
    ) -> None:
        self.config = config
        self.sampler = sampler
        self.evaluation = evaluation
        positions = {prompt: index for index, prompt in reversed(list(enumerate(prompts)))}
        self.cond = embeddings.batch([positions[text] for text in evaluation.texts])
        self.noise = sampler.noise(evaluation.texts, evaluation.seeds)
        self.step_noise = sampler.step_noise(evaluation.texts, evaluation.seeds, config)

    @property
    def every(self) -> int:
        """Student updates between measurements."""
        return self.evaluation.config.every

    def measure(self, student: Role, world: World, *, update: int) -> "Measurement":
        """Measure the student; every process of the run has to call it, and gets the same figures."""
        sigmas = self.sampler.adapter.to_sigma(torch.tensor(self.config.sampling.levels))
        batch = max(1, self.config.batch // world.size)
        drawn = []
        for start in range(0, len(self.noise), batch):
            rows = slice(start, start + batch)
            step_noise = None if self.step_noise is None else self.step_noise[rows]
            cond, noise = self.cond.rows(rows), self.noise[rows]
            x0 = self.sampler.latents(student, cond, noise, sigmas, step_noise=step_noise)
            drawn.append(self.sampler.pixels(x0))
        images = to_pil((torch.cat(drawn) * 255).round().to(torch.uint8)) if world.is_main else []
        return world.from_main(lambda: self.evaluation.measure(images, update=update, device=world.device))


@contextmanager
def _averaged(trainer: Trainer) -> Iterator[Role]:
    """The student with the weights that are exported."""
    student = trainer.roles.student
    settle(student.network)
    with swapped(trainer.student_weights(), trainer.export_weights()):
        yield student
        settle(student.network)


def _row(images: Tensor) -> Tensor:
    """Pictures side by side: (b, 3, h, w) -> (3, h, b w); of each video three frames, the first to the last."""
    if images.ndim > 4:
        images = images[:, :, list(three_frames(images.shape[2]))].transpose(1, 2).flatten(0, 1)
    return torch.cat(list(images), dim=2)


def _write_png(path: Path, image: Tensor) -> None:
    """Write a (3, h, w) picture in [0, 1], whole or not at all."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            Image.fromarray(pixels).save(unfinished, format="PNG")
