"""Figures of pictures: scores of single ones, distances of sets. Knows pictures and prompts, no model and no run."""

from fewstep.scores.metric import (
    Finding,
    Metric,
    MetricCard,
    MetricError,
    MetricSettings,
    Picture,
    PromptItem,
)
from fewstep.scores.registry import check_metrics, create_metrics, metric_names
from fewstep.scores.scoring import measure, score_folder
from fewstep.scores.statistics.frechet import frechet_distance
from fewstep.scores.statistics.kernel import kernel_distance
from fewstep.scores.statistics.prdc import Prdc, prdc

__all__ = [
    "Finding",
    "Metric",
    "MetricCard",
    "MetricError",
    "MetricSettings",
    "Picture",
    "Prdc",
    "PromptItem",
    "check_metrics",
    "create_metrics",
    "frechet_distance",
    "kernel_distance",
    "measure",
    "metric_names",
    "prdc",
    "score_folder",
]
