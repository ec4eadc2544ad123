"""The engine of ``fewstep evaluate``: check, draw, score, report."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from fewstep.backbones.source import embedded_task
from fewstep.bounds import GuidanceScale, Seed, Steps, require_within
from fewstep.embedded.tasks import TASKS
from fewstep.errors import ConfigError
from fewstep.evaluation.folder import EvaluationFolder, Extras, ModelRecord, Task, origin_of
from fewstep.evaluation.generate import generate
from fewstep.evaluation.given_pictures import GivenPictures, open_pictures, take_in
from fewstep.evaluation.models import (
    ModelEntry,
    find_teacher,
    require_distinct_names,
    resolve,
)
from fewstep.evaluation.prompt_sets import load_prompt_set
from fewstep.evaluation.prompts_page import PROMPTS_FILE, write_prompts_page
from fewstep.evaluation.protocol_id import Measured, conditions, protocol_id, require_comparable, versions
from fewstep.evaluation.ranks import Ranks, join_ranks, require_kind_of_device
from fewstep.evaluation.report import report_of
from fewstep.evaluation.results import as_markdown, write_results
from fewstep.evaluation.scoring import score
from fewstep.evaluation.table import make_table, measured
from fewstep.sampling.model_spec import ModelSpec, parse_spec
from fewstep.scores.metric import Metric
from fewstep.scores.registry import check_metrics, create_metrics

_Phase = Literal["generate", "score", "both"]
_DEFAULT_PROMPTS = "drawbench"
_DEFAULT_METRICS = ("imagereward", "clipscore", "pickscore", "hpsv2", "aesthetic")
_METRICS_OF_CLIPS = ("flicker",)
_EMBEDDED_METRICS = ("fid", "kid", "prdc", "diversity", "vendi")
"""Of an embedded task beside its own, over the features of its judge."""
_BATCH = 8
_OUTPUT = Path("runs/evaluation")


@dataclass(frozen=True)
class Order:
    """What the user asks for.

    Attributes:
        output: The evaluation's folder.
        models: As after ``--model``.
        pictures: As after ``--pictures``.
        teacher: As after ``--teacher``; None is the one that a student's files name.
        metrics: Names; empty for the default ones.
        settings: Of the metrics, by name.
        prompts: A name or a file; None is the default set, for students of the embedded teacher its own.
        num_prompts: Only the first so many.
        steps, guidance_scale: Of every model but the teacher that does not state its own.
        batch: Pictures per call of a model; None is 8, and 1 of clips.
        save_images: Keep the pictures after both phases.
        allow_different: Compare scores of different protocols.
    """

    output: Path
    models: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    teacher: str | None = None
    phase: _Phase = "both"
    metrics: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompts: str | None = None
    num_prompts: int | None = None
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    guidance_scale: float | None = None
    batch: int | None = None
    extras: Extras = field(default_factory=Extras)
    save_images: bool = True
    allow_different: bool = False
    device: str = "auto"


def evaluate(
    *models: str | Path,
    pictures: Sequence[str | Path] = (),
    output: str | Path = _OUTPUT,
    teacher: str | None = None,
    metrics: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    prompts: str | None = None,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    guidance_scale: float | None = None,
    device: str = "auto",
) -> dict[str, Any] | None:
    """Measure models against their teacher, as ``fewstep evaluate`` does, and write the report.

    Args:
        models: Folders, repository ids or ``fewstep:digits``; with choices as after ``--model``.
        pictures: Folders of pictures that another tool drew for the prompts, as after ``--pictures``.
        output: The evaluation's folder; what is in it already is not made again.
        teacher: As a model; None is the one that a student's files name.
        metrics: Names; empty for the default ones.
        settings: Of the metrics, by name.
        prompts: A set's name or a file; None is the default set, for students of the embedded teacher its own.
        seeds: One picture of every prompt for each.
        steps: Per picture; None is each model's own.
        guidance_scale: 1 is off; None is each model's own.
        device: A kind of torch device; ``auto`` is the fastest there is.

    Returns:
        What scores.json holds, on the leading process.

    Raises:
        ConfigError: A model, metric, prompt set or folder cannot be used, or the models' protocols differ.
        MetricError: A picture could not be scored.
    """
    if steps is not None:
        require_within(steps, "steps", Steps)
    if guidance_scale is not None:
        require_within(guidance_scale, "guidance_scale", GuidanceScale)
    for seed in seeds:
        require_within(seed, "seed", Seed)
    order = Order(
        output=Path(output),
        models=tuple(map(str, models)),
        pictures=tuple(map(str, pictures)),
        teacher=teacher,
        metrics=tuple(metrics),
        settings=settings or {},
        prompts=prompts,
        seeds=tuple(seeds),
        steps=steps,
        guidance_scale=guidance_scale,
        device=device,
    )
    return run_evaluation(order, console=Console(highlight=False))


def run_evaluation(order: Order, *, console: Console) -> dict[str, Any] | None:
    """Do what is asked; everything that can be known to be wrong is told before a picture is drawn.

    Returns:
        What scores.json holds, on the leading rank after the score phase; None otherwise.

    Raises:
        ConfigError: A model, metric, prompt set or folder cannot be used, or the models' protocols differ.
        MetricError: A picture could not be scored.
    """
    _require_sense(order)
    require_kind_of_device(order.device)
    folder = EvaluationFolder(order.output)
    folder.require_no_links()
    with join_ranks() as ranks:
        told = console if ranks.leads else Console(quiet=True)
        if order.phase == "score":
            task = folder.read_task()
            frames = _frames([record.entry for record in folder.records()])
            metrics = _metrics(order, task, frames)
        else:
            models = _models(order)
            task, given = _task(order, [entry for _, entry in models], console=told)
            entries = [entry for _, entry in models] + [one.entry for one in given]
            require_distinct_names(entries)
            frames = _frames(entries)
            metrics = _metrics(order, task, frames) if order.metrics or order.phase == "both" else ()
            _require_alike(folder, task, entries, order)
        check_metrics(metrics, task.prompts.items, num_seeds=len(task.seeds), frames=frames)
        if order.phase != "score":
            take_in(folder, task, given, ranks=ranks, console=told)
            batch = order.batch or (_BATCH if frames == 1 else 1)
            generate(folder, task, models, batch=batch, ranks=ranks, console=told, device=order.device)
        if order.phase == "generate":
            return None
        return _score(folder, task, metrics, order, ranks=ranks, console=told)


def _require_sense(order: Order) -> None:
    if order.phase != "score" and not order.models and not order.pictures:
        raise ConfigError(
            "There is no model to evaluate; name one, or --pictures FOLDER for pictures that another tool drew, or "
            "--phase score for drawn pictures."
        )
    if order.pictures and order.phase != "score" and order.prompts is None:
        raise ConfigError("Pictures are scored with the prompts that they were drawn for; name those: --prompts FILE.")
    if order.phase != "both" and not order.save_images:
        raise ConfigError(
            f"--no-save-images with --phase {order.phase} would lose the pictures between the phases; leave it out, or "
            "run both phases at once."
        )
    if not order.seeds or len(set(order.seeds)) != len(order.seeds):
        raise ConfigError(f"The seeds are {list(order.seeds)}; give at least one, and each once.")


def _models(order: Order) -> list[tuple[ModelSpec, ModelEntry]]:
    """Students in the order given, then the teacher; pictures alone need none."""
    if not order.models and order.teacher is None:
        return []
    specs = [_with_defaults(parse_spec(text), order) for text in order.models]
    teacher = parse_spec(order.teacher) if order.teacher is not None else find_teacher(specs)
    if teacher is None:
        raise ConfigError(
            f"{specs[0].model} does not say which teacher it was distilled from, and every table shows the teacher; "
            "name it: --teacher MODEL."
        )
    if teacher.name is None:
        teacher = teacher.model_copy(update={"name": "teacher"})
    entries = [resolve(spec, "student") for spec in specs] + [resolve(teacher, "teacher")]
    return list(zip([*specs, teacher], entries, strict=True))


def _with_defaults(spec: ModelSpec, order: Order) -> ModelSpec:
    given: dict[str, Any] = {}
    if order.steps is not None and spec.steps is None and spec.sigmas is None:
        given["steps"] = order.steps
    if order.guidance_scale is not None and spec.guidance_scale is None:
        given["guidance_scale"] = order.guidance_scale
    return spec.model_copy(update=given)


def _task(order: Order, drawn: Sequence[ModelEntry], *, console: Console) -> tuple[Task, list[GivenPictures]]:
    """The task, and the given pictures of its prompts."""
    inside = [known.name for entry in drawn if entry.role == "teacher" and (known := embedded_task(entry.model))]
    asked = order.prompts if order.prompts is not None else next(iter(inside), _DEFAULT_PROMPTS)
    prompts = load_prompt_set(asked)
    if prompts.note is not None:
        console.print(prompts.note, markup=False)
    task = Task(prompts.first(order.num_prompts), order.seeds, order.extras)
    with console.status("Reading the given pictures"):
        return task, [open_pictures(text, prompts.items, task) for text in order.pictures]


def _frames(entries: Sequence[ModelEntry]) -> int:
    """Of a clip that every model draws; 1 where one of them draws pictures."""
    return min((entry.sampling.frames or 1 for entry in entries), default=1)


def _metrics(order: Order, task: Task, frames: int) -> tuple[Metric, ...]:
    if order.metrics:
        return create_metrics(order.metrics, order.settings)
    if (judge := task.prompts.name) in TASKS:
        names = (judge, *(name for name in _EMBEDDED_METRICS if _fits(name, task)))
        own: dict[str, Mapping[str, Any]] = {name: {"extractor": judge} for name in names[1:]}
        return create_metrics(names, own | {n: {**own.get(n, {}), **s} for n, s in order.settings.items()})
    return create_metrics((*_DEFAULT_METRICS, *(_METRICS_OF_CLIPS if frames > 1 else ())), order.settings)


def _fits(name: str, task: Task) -> bool:
    """Whether one of the default metrics has the pictures that it needs."""
    (metric,) = create_metrics((name,))
    return metric.min_seeds <= len(task.seeds) and metric.min_pictures <= len(task.prompts.items) * len(task.seeds)


def _require_alike(folder: EvaluationFolder, task: Task, entries: Sequence[ModelEntry], order: Order) -> None:
    """Refuse models that could not be compared afterwards, together with those that the folder holds already."""
    new = [ModelRecord(entry=entry, versions={} if entry.role == "pictures" else versions()) for entry in entries]
    names = {entry.name for entry in entries}
    old = [record for record in folder.records() if record.entry.name not in names]
    seen = []
    for record in (*old, *new):
        known = conditions(origin_of(task, record), {})
        entry = record.entry
        seen.append(Measured(entry.name, entry.role, "The pictures", protocol_id(known), known))
    require_comparable(seen, allow_different=order.allow_different)


def _score(
    folder: EvaluationFolder,
    task: Task,
    metrics: Sequence[Metric],
    order: Order,
    *,
    ranks: Ranks,
    console: Console,
) -> dict[str, Any] | None:
    records = folder.records()
    if not records:
        raise ConfigError(f"{folder.path} holds no pictures of any model; draw them with --phase generate.")
    scored = score(folder, task, records, metrics, ranks=ranks, console=console, device=order.device)
    summary = None
    if ranks.leads:
        warnings = require_comparable(measured(scored), allow_different=order.allow_different)
        with console.status("Intervals: every figure on prompts drawn again and again"):
            table = make_table(scored, num_prompts=len(task.prompts.items), warnings=warnings)
        summary = write_results(folder, task, table, scored)
        beside = PROMPTS_FILE if order.save_images else None
        report_of(folder, task, table, scored, summary, all_prompts=beside).write(folder.path / "report.html")
        if order.save_images:
            write_prompts_page(folder, task, scored)
        console.print(as_markdown(task, table), markup=False, soft_wrap=True)
        console.print(f"The report is {folder.path / 'report.html'}.")
        if not order.save_images:
            for record in records:
                shutil.rmtree(folder.model_folder(record.entry.name) / "pictures")
    ranks.wait()
    return summary
