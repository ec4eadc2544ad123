"""Put metrics to work: the networks of one are in memory only while it looks at pictures."""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fewstep.errors import ConfigError, shown
from fewstep.files import UnreadableError
from fewstep.garbage import libraries_are_there
from fewstep.scores.metric import Metric, Picture, PromptItem, frames_of
from fewstep.scores.pictures import clips_in, pictures_in
from fewstep.scores.registry import check_metrics, create_metrics


def score_folder(
    folder: str | Path,
    metrics: Sequence[str],
    *,
    prompts: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    clips: bool = False,
    device: str = "cpu",
) -> dict[str, float]:
    """Figures of the pictures of any folder, whoever drew them.

    Args:
        folder: Pictures, also in subfolders.
        metrics: Names, as after ``--metrics``.
        prompts: By a picture's path below ``folder``, the prompt it was drawn for; pictures of equal prompts are seeds
            of one. None where nobody knows, for metrics that read no prompt.
        clips: Whether each folder of pictures is a clip, its frames numbered; ``prompts`` are then by folder.
        settings: By the metric's name, the settings that differ from their defaults.
        device: Where the networks go.

    Returns:
        Every figure by its name, metric by metric.

    Raises:
        ConfigError: There is no picture, a prompt is missing, a metric lacks a package, a checkpoint or pictures, or
            clips are too long or of several lengths.
        MetricError: A picture cannot be scored.
    """
    drawn = _drawn(Path(folder), prompts, clips=clips)
    pictures = [picture for pictures in drawn for picture in pictures]
    items = tuple({picture.item.id: picture.item for picture in pictures}.values())
    chosen = create_metrics(metrics, settings)
    blind = [metric.card.name for metric in chosen if metric.reads_prompts] if prompts is None else []
    if blind:
        raise ConfigError(f"{blind[0]} reads prompts, and none are given for the pictures in {folder}; give prompts.")
    num_seeds = min(Counter(first.item.id for first, *_ in drawn).values())
    check_metrics(chosen, items, num_seeds=num_seeds, frames=len(drawn[0]))
    figures: dict[str, float] = {}
    for metric in chosen:
        figures |= measure(metric, pictures, torch.device(device))
    return figures


@contextmanager
def loaded(metric: Metric, device: torch.device) -> Iterator[None]:
    """The metric's networks on ``device`` inside the block, and nowhere after it."""
    libraries_are_there()
    try:
        metric.load(device)
        yield
    finally:
        metric.unload()
        gc.collect()


def measure(metric: Metric, pictures: Sequence[Picture], device: torch.device) -> dict[str, float]:
    """A metric's figures of some pictures, or clips as all their frames in their order.

    Raises:
        MetricError: A picture cannot be scored.
    """
    size, pictures = metric.settings.batch, metric.chosen(pictures)
    with loaded(metric, device):
        batches = (pictures[start : start + size] for start in range(0, len(pictures), size))
        findings = [finding for batch in batches for finding in metric.examine(batch)]
        return metric.conclude(pictures, findings)


def _drawn(folder: Path, prompts: Mapping[str, str] | None, *, clips: bool) -> list[list[Picture]]:
    """Every picture by itself, or the frames of every clip."""
    try:
        found = clips_in(folder) if clips else [[path] for path in pictures_in(folder)]
    except UnreadableError as error:
        raise ConfigError(f"{folder} cannot be scored: {error}.") from error
    what = "clips" if clips else "pictures"
    if not found:
        frames = ", and a clip as the folder of its frames (ffmpeg -i a.mp4 a/%05d.png)" if clips else ""
        raise ConfigError(f"{folder} holds no {what} to score; give a folder of pictures{frames}.")
    names = [(first.parent if clips else first).relative_to(folder).as_posix() for first, *_ in found]
    missing = [name for name in names if prompts is not None and name not in prompts]
    if missing:
        raise ConfigError(f"{len(missing)} {what} in {folder} have no prompt, first {shown(missing[0])}; add theirs.")
    items: dict[str, PromptItem] = {}
    seeds: Counter[str] = Counter()
    drawn = []
    for paths, name in zip(found, names, strict=True):
        if prompts is None:
            item = PromptItem(name, "")
        else:
            item = items.setdefault(prompts[name], PromptItem(f"{len(items):05d}", prompts[name]))
        seed = seeds[item.id]
        seeds[item.id] += 1
        drawn.append(frames_of(paths, item, seed) if clips else [Picture(paths[0], item, seed)])
    return drawn
