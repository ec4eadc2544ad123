"""The score phase: every metric over every model's pictures, one metric in memory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from fewstep.devices import fastest_device
from fewstep.errors import ConfigError
from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task, origin_of
from fewstep.evaluation.progress import progress_bar
from fewstep.evaluation.protocol_id import ProtocolId, conditions, metric_conditions, protocol_id, short_hash
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.records import FindingStore, key_of
from fewstep.scores.metric import Finding, Metric, Picture
from fewstep.scores.scoring import loaded


@dataclass(frozen=True)
class Scored:
    """One metric's result on one model.

    Attributes:
        record: The model.
        metric: Holds no weights.
        id: Under which the numbers were measured.
        conditions: What the id stands for.
        pictures: In the task's order, prompt by prompt; of clips the frames that the metric looks at.
        findings: One per picture.
        figures: What the metric concludes; the first is its own.
    """

    record: ModelRecord
    metric: Metric
    id: ProtocolId
    conditions: Mapping[str, Any]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...]
    figures: Mapping[str, float]


def score(
    folder: EvaluationFolder,
    task: Task,
    records: Sequence[ModelRecord],
    metrics: Sequence[Metric],
    *,
    ranks: Ranks,
    console: Console,
    device: str = "auto",
) -> list[Scored]:
    """Score what is not scored yet, and summarise.

    Returns:
        Every metric on every model, on the leading rank; nothing on the others.

    Raises:
        ConfigError: Pictures are missing.
        MetricError: A picture cannot be scored; scores made before it are kept.
    """
    pictures = {record.entry.name: folder.pictures(task, record) for record in records}
    for record in records:
        _require_pictures(record, pictures[record.entry.name])
    place = ranks.device(fastest_device() if device == "auto" else device)
    results = []
    for metric in metrics:
        seen = {name: metric.chosen(drawn) for name, drawn in pictures.items()}
        _fill(folder, records, seen, metric, ranks=ranks, console=console, device=place)
        ranks.wait()
        if ranks.leads:
            known = metric_conditions(metric)
            results += [_summarise(folder, task, record, seen[record.entry.name], metric, known) for record in records]
    return results


def _require_pictures(record: ModelRecord, pictures: Sequence[Picture]) -> None:
    absent = [picture for picture in pictures if not picture.path.is_file()]
    if absent:
        raise ConfigError(
            f"{len(absent)} of {len(pictures)} pictures of {record.entry.name} are missing, the first is "
            f"{absent[0].path}; draw them: fewstep evaluate --phase generate with the same arguments."
        )


def _store(folder: EvaluationFolder, record: ModelRecord, metric: Metric) -> FindingStore:
    """Where a metric's findings are: named by what they depend on, so that other settings never meet them."""
    known, shared = metric_conditions(metric), metric.findings_key
    if shared is not None:
        name = f"features-{short_hash([shared, known['versions']])}"
    else:
        name = f"{metric.card.name}-{short_hash(known)}"
    return FindingStore(folder.scores_folder(record.entry.name, name))


def _fill(
    folder: EvaluationFolder,
    records: Sequence[ModelRecord],
    pictures: Mapping[str, Sequence[Picture]],
    metric: Metric,
    *,
    ranks: Ranks,
    console: Console,
    device: torch.device,
) -> None:
    """Score this rank's share of the pictures that have no record; the metric is loaded only if there are any."""
    work = []
    for record in records:
        store = _store(folder, record, metric)
        known = store.read(pictures[record.entry.name])
        left = [picture for picture in pictures[record.entry.name] if key_of(picture) not in known]
        size = metric.settings.batch
        batches = ranks.share([left[start : start + size] for start in range(0, len(left), size)])
        work += [(store, batch) for batch in batches]
    # nobody writes before everybody has seen what is missing: the shares would differ
    ranks.wait()
    if not work:
        return
    with (
        loaded(metric, device),
        progress_bar(console, f"Scoring {metric.card.name}", sum(len(batch) for _, batch in work)) as advance,
    ):
        for store, batch in work:
            store.add(batch, metric.examine(batch), part=f"part-{ranks.rank}")
            advance(len(batch))


def _summarise(
    folder: EvaluationFolder,
    task: Task,
    record: ModelRecord,
    pictures: Sequence[Picture],
    metric: Metric,
    known: Mapping[str, Any],
) -> Scored:
    told = conditions(origin_of(task, record), known, looked_at=metric.settings.frames)
    read = _store(folder, record, metric).read(pictures)
    findings = tuple(read[key_of(picture)] for picture in pictures)
    figures = metric.conclude(pictures, findings)
    return Scored(record, metric, protocol_id(told), told, tuple(pictures), findings, figures)
