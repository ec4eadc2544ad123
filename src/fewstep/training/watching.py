"""What looks at the student while it trains: sample sheets and metrics, at their updates.

All processes draw, one paints or measures, and all are told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.data.embeddings import EmbeddingCache
from fewstep.distributed.sharding import settle
from fewstep.distributed.world import World
from fewstep.errors import ConfigError
from fewstep.roles.averaging import swapped
from fewstep.roles.role import Role
from fewstep.sampling.pictures import to_pil
from fewstep.training.sheets import RoleSampler, SheetPainter
from fewstep.training.trainer import Trainer

if TYPE_CHECKING:
    from fewstep.evaluation.during_training import Measurement, TrainingEvaluation


def due(updates: int, every: int | None) -> bool:
    """Whether something that comes every so many student updates comes now; None is never."""
    return every is not None and updates % every == 0


@dataclass(frozen=True)
class Watchers:
    """What a run has of them."""

    painters: Mapping[str, SheetPainter]
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
                    path = sheets / f"update-{updates:06d}{size}.png"
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
        ConfigError: A metric of the recipe cannot be used, or the backbone makes videos.
    """
    evaluation = None
    if config.evaluation is not None and adapter.frame_rate is not None:
        raise ConfigError(
            f"{adapter.config.model} makes videos, and the metrics of evaluation judge single pictures; leave "
            "evaluation out (evaluation=null), and look at the sample sheets."
        )
    if config.evaluation is not None:
        from fewstep.evaluation.during_training import TrainingEvaluation

        evaluation = TrainingEvaluation(config.evaluation, prompts, run / "evaluation")

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
            count = min(config.report.sheet_prompts, len(prompts))
            chosen = range(0, len(prompts), max(1, len(prompts) // count))[:count]
            shown, cond = [prompts[i] for i in chosen], embeddings.batch(list(chosen))
            painters = {size: SheetPainter(config, sampler, shown, cond) for size, sampler in samplers.items()}
        if evaluation is None:
            return Watchers(painters, None)
        own = RoleSampler(adapter, vae, embeddings.null, world.device)
        return Watchers(painters, _StudentEvaluation(config, own, evaluation, prompts, embeddings))

    return with_decoder


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
            drawn.append(self.sampler.sample(student, self.cond.rows(rows), self.noise[rows], sigmas))
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
