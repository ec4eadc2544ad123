"""The ``evaluation`` section of a recipe: metrics that run now and then while a student trains."""

from typing import Any

from pydantic import Field, model_validator

from fewstep.bounds import Count, Name, Pictures
from fewstep.section import Changeable


class EvaluationConfig(Changeable):
    """Which metrics measure the student during training, how often and on how many pictures."""

    every: Count = Field(description="student updates between measurements")
    metrics: tuple[Name, ...] = Field(
        min_length=1, max_length=100, description="names, as `fewstep evaluate metrics` lists them"
    )
    settings: dict[Name, dict[Name, Any]] = Field(default_factory=dict, description="of the metrics, by name")
    num_prompts: Count = Field(default=16, description="the first of the run's prompts")
    num_seeds: Pictures = Field(default=1, description="pictures per prompt")
    keep_best: Name | None = Field(default=None, description="the figure by which the best student is kept")

    @model_validator(mode="after")
    def _settings_have_their_metric(self) -> "EvaluationConfig":
        for name in self.settings:
            if name not in self.metrics:
                raise ValueError(f"evaluation.settings has the metric {name}, which evaluation.metrics does not name")
        return self
