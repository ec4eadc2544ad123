"""Metrics while a student trains: on a few pictures, one metric in memory at a time and none in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from fewstep.config.run_config import EvaluationConfig
from fewstep.errors import CheckpointError, ConfigError
from fewstep.files import UnreadableError, read_json, write_json
from fewstep.sampling.pictures import Drawn, require_writable, save_picture
from fewstep.scores.metric import Picture, PromptItem, drawn_at
from fewstep.scores.registry import check_metrics, create_metrics
from fewstep.scores.scoring import measure

_BEST_FILE = "best.json"


@dataclass(frozen=True)
class Measurement:
    """What one measurement found.

    Attributes:
        figures: By ``evaluation/FIGURE``, as they go into metrics.jsonl.
        improved: Whether the figure of ``keep_best`` is the best so far.
    """

    figures: dict[str, float]
    improved: bool


class _Best(BaseModel):
    """``best.json``."""

    figure: str
    value: float
    update: int


class TrainingEvaluation:
    """Measures a student every so many updates.

    The trainer draws :attr:`texts` with :attr:`seeds` and gives the pictures to :meth:`measure`; when the measurement
    improved it keeps the student.

    Args:
        config: The recipe's section.
        prompts: The run's prompts; the first of them are measured.
        folder: ``evaluation`` in the run's folder; pictures and ``best.json`` go there.
        frames: Of a clip, where the student makes videos.

    Raises:
        ConfigError: A metric is unknown, lacks a package or a checkpoint, or cannot score these prompts.
    """

    def __init__(
        self, config: EvaluationConfig, prompts: Sequence[str], folder: Path, *, frames: int | None = None
    ) -> None:
        self.config = config
        self.folder = folder
        self.frames = frames
        self.items = tuple(PromptItem(f"{i:05d}", text) for i, text in enumerate(prompts[: config.num_prompts]))
        self.metrics = create_metrics(config.metrics, config.settings)
        check_metrics(self.metrics, self.items, num_seeds=config.num_seeds, frames=frames or 1)

    @property
    def texts(self) -> list[str]:
        """The prompt of every picture, prompt by prompt."""
        return [item.text for item in self.items for _ in range(self.config.num_seeds)]

    @property
    def seeds(self) -> list[int]:
        """The seed of every picture."""
        return [seed for _ in self.items for seed in range(self.config.num_seeds)]

    def measure(self, images: Sequence[Drawn], *, update: int, device: torch.device) -> Measurement:
        """Score the pictures of :attr:`texts` and :attr:`seeds`.

        Args:
            images: In that order.
            update: The student's update, for the pictures' folder and ``best.json``.
            device: Where the metrics' networks go while they are needed.

        Raises:
            ConfigError: ``keep_best`` names no figure of these metrics.
            MetricError: A picture cannot be scored.
        """
        pictures = self._save(images, update)
        figures: dict[str, _Figure] = {}
        for metric in self.metrics:
            found = measure(metric, pictures, device)
            figures.update({name: _Figure(value, metric.card.higher_is_better) for name, value in found.items()})
        told = {f"evaluation/{name}": figure.value for name, figure in figures.items()}
        return Measurement(told, self._keep(figures, update))

    def best(self) -> "_Best | None":
        """The best measurement so far, or None; a resumed run reads it back."""
        path = self.folder / _BEST_FILE
        if not path.exists():
            return None
        try:
            return read_json(path, _Best)
        except UnreadableError as error:
            raise CheckpointError(
                f"{path} is damaged ({error}); delete it, and the next measurement is best."
            ) from error

    def _save(self, images: Sequence[Drawn], update: int) -> list[Picture]:
        folder = self.folder / f"update-{update:06d}"
        named = [(item, seed) for item in self.items for seed in range(self.config.num_seeds)]
        places = [(folder / f"{item.id}.seed{seed}.png", item, seed) for item, seed in named]
        pictures = [picture for place in places for picture in drawn_at(*place, frames=self.frames)]
        require_writable([pictures[0].path])
        frames = [frame for image in images for frame in (image if isinstance(image, list) else [image])]
        for picture, frame in zip(pictures, frames, strict=True):
            save_picture(frame, picture.path)
        return pictures

    def _keep(self, figures: Mapping[str, "_Figure"], update: int) -> bool:
        """Write best.json when the chosen figure is better than ever."""
        name = self.config.keep_best
        if name is None:
            return False
        if name not in figures:
            raise ConfigError(
                f"evaluation.keep_best is {name!r}, which no metric measures here; there are: {', '.join(figures)}."
            )
        new, best = figures[name], self.best()
        # what names this update or a later one was written by a run that was killed before it kept that student
        earlier = best is not None and best.figure == name and best.update < update
        if best is not None and earlier and not new.beats(best.value):
            return False
        write_json(self.folder / _BEST_FILE, {"figure": name, "value": new.value, "update": update})
        return True


@dataclass(frozen=True)
class _Figure:
    value: float
    higher_is_better: bool

    def beats(self, other: float) -> bool:
        return self.value > other if self.higher_is_better else self.value < other
