"""Figures of pictures: scores of single ones, distances of sets. Knows pictures and prompts, no model and no run."""

from fewstep.scores.statistics.diversity import histogram, total_variation, within_prompt_diversity
from fewstep.scores.statistics.frechet import frechet_distance
from fewstep.scores.statistics.kernel import kernel_distance
from fewstep.scores.statistics.prdc import Prdc, prdc

__all__ = [
    "Prdc",
    "frechet_distance",
    "histogram",
    "kernel_distance",
    "prdc",
    "total_variation",
    "within_prompt_diversity",
]
