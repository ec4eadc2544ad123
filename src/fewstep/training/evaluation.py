"""Metrics of the student while it trains: draw with all processes, measure with one, tell all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fewstep.config.run_config import RunConfig
from fewstep.data.embeddings import EmbeddingCache
from fewstep.distributed.world import World
from fewstep.roles.role import Role
from fewstep.sampling.pictures import to_pil
from fewstep.training.sheets import RoleSampler

if TYPE_CHECKING:
    from fewstep.evaluation.during_training import Measurement, TrainingEvaluation


class StudentEvaluation:
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
