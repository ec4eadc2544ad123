"""The generate phase: every model's pictures on disk, each from its own prompt and seed, resumable at any picture."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from fewstep.devices import fastest_device
from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.models import ModelEntry
from fewstep.evaluation.progress import Advance, progress_bar
from fewstep.evaluation.protocol_id import versions
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.samplers import Sampler, open_sampler
from fewstep.sampling.model_spec import ModelSpec
from fewstep.sampling.pictures import require_writable, save_picture
from fewstep.scores.metric import PromptItem
from fewstep.scores.pictures import is_whole_png


@dataclass(frozen=True)
class _Request:
    """One picture or clip to be drawn; ``paths`` has a file for each frame."""

    item: PromptItem
    seed: int
    steps: int
    paths: tuple[Path, ...]


def generate(
    folder: EvaluationFolder,
    task: Task,
    models: Sequence[tuple[ModelSpec, ModelEntry]],
    *,
    batch: int,
    ranks: Ranks,
    console: Console,
    device: str = "auto",
) -> None:
    """Draw what is missing of every model's pictures.

    Args:
        batch: Pictures per call of a model.
        device: A kind of torch device; ``auto`` is the fastest there is.

    Raises:
        ConfigError: The folder holds pictures of something else, or a model cannot be drawn as asked.
    """
    started = [folder.require_same(entry, versions()) for _, entry in models]
    if ranks.leads:
        folder.write_task(task)
        for (_, entry), record in zip(models, started, strict=True):
            if record is None:
                folder.write_record(ModelRecord(entry=entry, versions=versions()))
    ranks.wait()
    place = ranks.device(fastest_device() if device == "auto" else device)
    for spec, entry in models:
        _generate_model(folder, task, spec, entry, batch=batch, ranks=ranks, console=console, device=place)


def requests(folder: EvaluationFolder, task: Task, entry: ModelEntry) -> list[_Request]:
    """Every picture of one model: those that are scored, then the report's own; none twice."""
    items, own = task.prompts.items, _own_steps(entry)
    extras = task.extras
    wanted = [(item, seed, own) for item in items for seed in task.seeds]
    wanted += [(item, task.seeds[0], steps) for steps in extras.ladder for item in items[: extras.ladder_prompts]]
    wanted += [(item, seed, own) for item in items[: extras.strip_prompts] for seed in strip_seeds(task)]
    found = (_Request(i, seed, steps, folder.picture_paths(entry, i, seed, steps)) for i, seed, steps in wanted)
    return list({request.paths: request for request in found}.values())


def _own_steps(entry: ModelEntry) -> int:
    assert entry.sampling.steps is not None, f"{entry.name} is no model that could draw"
    return entry.sampling.steps


def strip_seeds(task: Task) -> tuple[int, ...]:
    """The seeds of the pictures that show how one prompt varies: the task's own first."""
    more = range(task.seeds[0], task.seeds[0] + 10_000)
    distinct = dict.fromkeys((*task.seeds, *more))
    return tuple(distinct)[: task.extras.strip_seeds]


def in_batches(pictures: Sequence[_Request], size: int) -> list[list[_Request]]:
    """Batches of one number of steps; the same ones whatever is drawn already, and whoever draws."""
    by_steps: dict[int, list[_Request]] = {}
    for request in pictures:
        by_steps.setdefault(request.steps, []).append(request)
    return [group[start : start + size] for group in by_steps.values() for start in range(0, len(group), size)]


def _generate_model(
    folder: EvaluationFolder,
    task: Task,
    spec: ModelSpec,
    entry: ModelEntry,
    *,
    batch: int,
    ranks: Ranks,
    console: Console,
    device: torch.device,
) -> None:
    wanted = requests(folder, task, entry)
    require_writable(wanted[0].paths[:1])
    units = ranks.share(in_batches(wanted, batch))
    # a batch that lacks one picture is drawn again as a whole: rounding may depend on who shares a network call
    missing = [unit for unit in units if not all(is_whole_png(path) for request in unit for path in request.paths)]
    total, left = sum(map(len, units)), sum(map(len, missing))
    calls = 0.0
    if missing:
        sampler = open_sampler(spec, entry, device, prompts=[item.text for item in task.prompts.items])
        with progress_bar(console, f"Drawing {entry.name}", total, done=total - left) as advance:
            calls = _draw_all(sampler, missing, own_steps=_own_steps(entry), advance=advance)
        del sampler
        gc.collect()
    ranks.wait()
    if ranks.leads:
        known = folder.record(entry.name)
        before = None if known is None else known.calls_per_picture
        record = ModelRecord(entry=entry, versions=versions(), calls_per_picture=before or calls or None, complete=True)
        folder.write_record(record)


def _draw_all(sampler: Sampler, units: Sequence[Sequence[_Request]], *, own_steps: int, advance: Advance) -> float:
    """Draw every unit; returns the network calls per picture at the model's own number of steps, 0 without any unit."""
    calls = 0.0
    for unit in units:
        steps = unit[0].steps
        prompts, seeds = [request.item.text for request in unit], [request.seed for request in unit]
        images, cost = sampler.sample(prompts, seeds, steps=steps)
        for request, image in zip(unit, images, strict=True):
            for frame, path in zip(image if isinstance(image, list) else [image], request.paths, strict=True):
                save_picture(frame, path)
        # a call that was stopped may have drawn all of its own steps: then from others, in proportion
        calls = cost if steps == own_steps else calls or cost * own_steps / steps
        advance(len(unit))
    return calls
