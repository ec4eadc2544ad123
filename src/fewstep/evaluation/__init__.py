"""Metrics over features; each compares pictures with real ones and is a pure function."""

from fewstep.evaluation.diversity import histogram, total_variation, within_prompt_diversity
from fewstep.evaluation.frechet import frechet_distance
from fewstep.evaluation.kernel import kernel_distance
from fewstep.evaluation.prdc import Prdc, prdc

__all__ = [
    "Prdc",
    "frechet_distance",
    "histogram",
    "kernel_distance",
    "prdc",
    "total_variation",
    "within_prompt_diversity",
]
