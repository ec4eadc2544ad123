"""Put metrics to work: the networks of one are in memory only while it looks at pictures."""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fewstep.errors import ConfigError, shown
from fewstep.scores.metric import Metric, Picture, PromptItem
from fewstep.scores.pictures import pictures_in
from fewstep.scores.registry import check_metrics, create_metrics


def score_folder(
    folder: str | Path,
    metrics: Sequence[str],
    *,
    prompts: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Figures of the pictures of any folder, whoever drew them.

    Args:
        folder: Pictures, also in subfolders.
        metrics: Names, as after ``--metrics``.
        prompts: By a picture's path below ``folder``, the prompt it was drawn for; pictures of equal prompts are seeds
            of one. None where nobody knows, for metrics that read no prompt.
        settings: By the metric's name, the settings that differ from their defaults.
        device: Where the networks go.

    Returns:
        Every figure by its name, metric by metric.

    Raises:
        ConfigError: There is no picture, a prompt is missing, or a metric lacks a package, a checkpoint or pictures.
        MetricError: A picture cannot be scored.
    """
    pictures = _pictures(Path(folder), prompts)
    items = tuple({picture.item.id: picture.item for picture in pictures}.values())
    chosen = create_metrics(metrics, settings)
    blind = [metric.card.name for metric in chosen if metric.reads_prompts] if prompts is None else []
    if blind:
        raise ConfigError(f"{blind[0]} reads prompts, and none are given for the pictures in {folder}; give prompts.")
    check_metrics(chosen, items, num_seeds=min(Counter(picture.item.id for picture in pictures).values()))
    figures: dict[str, float] = {}
    for metric in chosen:
        figures |= measure(metric, pictures, torch.device(device))
    return figures


@contextmanager
def loaded(metric: Metric, device: torch.device) -> Iterator[None]:
    """The metric's networks on ``device`` inside the block, and nowhere after it."""
    try:
        metric.load(device)
        yield
    finally:
        metric.unload()
        gc.collect()


def measure(metric: Metric, pictures: Sequence[Picture], device: torch.device) -> dict[str, float]:
    """A metric's figures of some pictures.

    Raises:
        MetricError: A picture cannot be scored.
    """
    size = metric.settings.batch
    with loaded(metric, device):
        batches = (pictures[start : start + size] for start in range(0, len(pictures), size))
        findings = [finding for batch in batches for finding in metric.examine(batch)]
        return metric.conclude(pictures, findings)


def _pictures(folder: Path, prompts: Mapping[str, str] | None) -> list[Picture]:
    paths = pictures_in(folder)
    if not paths:
        raise ConfigError(f"{folder} holds no pictures to score; give a folder of pictures.")
    names = [path.relative_to(folder).as_posix() for path in paths]
    if prompts is None:
        return [Picture(path, PromptItem(name, ""), 0) for path, name in zip(paths, names, strict=True)]
    missing = [name for name in names if name not in prompts]
    if missing:
        raise ConfigError(f"{len(missing)} pictures in {folder} have no prompt, first {shown(missing[0])}; add theirs.")
    items: dict[str, PromptItem] = {}
    drawn: dict[str, int] = {}
    pictures = []
    for path, name in zip(paths, names, strict=True):
        text = prompts[name]
        item = items.setdefault(text, PromptItem(f"{len(items):05d}", text))
        drawn[text] = drawn.get(text, -1) + 1
        pictures.append(Picture(path, item, drawn[text]))
    return pictures
