"""The score phase: every metric over every model's pictures, one metric in memory at a time."""

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Plan, drawn
from fewstep.evaluation.progress import progress_bar
from fewstep.evaluation.protocol_id import ProtocolId, conditions, metric_conditions, protocol_id, short_hash
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.records import FeatureStore, FindingStore, key_of
from fewstep.sampling.generate import fastest_device
from fewstep.scores.metric import Finding, ImageMetric, Metric, MetricError, Picture, SetMetric


@dataclass(frozen=True)
class Scored:
    """One metric's result on one model.

    Attributes:
        record: The model.
        metric: Holds no weights.
        id: Under which the numbers were measured.
        conditions: What the id stands for.
        pictures: In the plan's order, prompt by prompt.
        findings: One per picture, of an image metric.
        features: One row per picture, of a set metric.
        figures: The metric's summary; the first is its own.
    """

    record: ModelRecord
    metric: Metric
    id: ProtocolId
    conditions: Mapping[str, Any]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...] | None
    features: Tensor | None
    figures: Mapping[str, float]


def score(
    folder: EvaluationFolder,
    plan: Plan,
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
    pictures = {record.entry.name: folder.pictures(plan, record) for record in records}
    for record in records:
        _require_pictures(record, pictures[record.entry.name])
    place = ranks.device(fastest_device() if device == "auto" else device)
    results = []
    for metric in metrics:
        _fill(folder, records, pictures, metric, ranks=ranks, console=console, device=place)
        ranks.wait()
        if ranks.leads:
            known = metric_conditions(metric)
            results += [
                _summarise(folder, plan, record, pictures[record.entry.name], metric, known) for record in records
            ]
    return results


def _require_pictures(record: ModelRecord, pictures: Sequence[Picture]) -> None:
    absent = [picture for picture in pictures if not picture.path.is_file()]
    if absent:
        raise ConfigError(
            f"{len(absent)} of {len(pictures)} pictures of {record.entry.name} are missing, the first is "
            f"{absent[0].path}; draw them: fewstep evaluate --phase generate with the same arguments."
        )


def _store(folder: EvaluationFolder, record: ModelRecord, metric: Metric) -> FindingStore | FeatureStore:
    """Where a metric's records are: named by what they depend on, so that other settings never meet them."""
    known = metric_conditions(metric)
    if isinstance(metric, SetMetric):
        key = f"features-{short_hash([metric.feature_key, known['versions']])}"
        return FeatureStore(folder.scores_folder(record.entry.name, key))
    return FindingStore(folder.scores_folder(record.entry.name, f"{metric.card.name}-{short_hash(known)}"))


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
    total = sum(len(batch) for _, batch in work)
    try:
        metric.load(device)
        with progress_bar(console, f"Scoring {metric.card.name}", total) as advance, torch.no_grad():
            for store, batch in work:
                _score_batch(metric, store, batch, part=f"part-{ranks.rank}")
                advance(len(batch))
    finally:
        metric.unload()
        gc.collect()


def _score_batch(metric: Metric, store: FindingStore | FeatureStore, batch: Sequence[Picture], *, part: str) -> None:
    if isinstance(metric, ImageMetric) and isinstance(store, FindingStore):
        findings = metric.examine(batch)
        for picture, finding in zip(batch, findings, strict=True):
            require_finite(metric, picture, math.isfinite(finding.score))
        store.add(batch, findings, part=part)
    elif isinstance(metric, SetMetric) and isinstance(store, FeatureStore):
        features = metric.features(batch)
        for picture, row in zip(batch, features, strict=True):
            require_finite(metric, picture, bool(row.isfinite().all()))
        store.add(batch, features)


def require_finite(metric: Metric, picture: Picture, finite: bool) -> None:
    """Raise MetricError, naming the picture, for a score that is no finite number."""
    if not finite:
        raise MetricError(
            f"{metric.card.name} gives no finite number for {picture.path} (prompt {picture.item.text!r}, seed "
            f"{picture.seed}); look at the picture, and delete it to have it drawn again."
        )


def _summarise(
    folder: EvaluationFolder,
    plan: Plan,
    record: ModelRecord,
    pictures: Sequence[Picture],
    metric: Metric,
    known: Mapping[str, Any],
) -> Scored:
    store = _store(folder, record, metric)
    told = conditions(drawn(plan, record), known)
    findings, features = None, None
    if isinstance(metric, ImageMetric) and isinstance(store, FindingStore):
        read = store.read(pictures)
        findings = tuple(read[key_of(picture)] for picture in pictures)
        figures = metric.conclude(pictures, findings)
    elif isinstance(metric, SetMetric) and isinstance(store, FeatureStore):
        rows = store.read(pictures)
        features = torch.stack([rows[key_of(picture)] for picture in pictures])
        figures = metric.summary(pictures, features)
    else:
        raise TypeError(f"{type(metric).__name__} is neither an ImageMetric nor a SetMetric")
    return Scored(record, metric, protocol_id(told), told, tuple(pictures), findings, features, figures)
