"""Which metric has which name, and what its card says: as lines for a terminal, and as the page docs/metrics.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fewstep.errors import ConfigError, shown
from fewstep.files import read_json
from fewstep.scores.metric import Metric, MetricCard, PromptItem

_METRICS = "fewstep.scores.metrics"
_BUILT_IN = {
    "imagereward": f"{_METRICS}.imagereward:ImageReward",
    "clipscore": f"{_METRICS}.clip:ClipScore",
    "pickscore": f"{_METRICS}.clip:PickScore",
    "hpsv2": f"{_METRICS}.clip:Hpsv2",
    "hpsv3": f"{_METRICS}.hpsv3:Hpsv3",
    "aesthetic": f"{_METRICS}.aesthetic:Aesthetic",
    "ocr": f"{_METRICS}.ocr:OcrMetric",
    "dpgbench": f"{_METRICS}.dpgbench:DpgBenchMetric",
    "vqascore": f"{_METRICS}.vqascore:VqaScoreMetric",
    "geneval": f"{_METRICS}.geneval:GenEvalMetric",
    "judge": f"{_METRICS}.judge:JudgeMetric",
    "digits": f"{_METRICS}.digits:DigitsMetric",
    "colours": f"{_METRICS}.digits:ColoursMetric",
    "scenes": f"{_METRICS}.scenes:ScenesMetric",
    "fid": f"{_METRICS}.distances:FidMetric",
    "kid": f"{_METRICS}.distances:KidMetric",
    "kid_subsets": f"{_METRICS}.distances:KidSubsetsMetric",
    "cmmd": f"{_METRICS}.distances:CmmdMetric",
    "prdc": f"{_METRICS}.distances:PrdcMetric",
    "vendi": f"{_METRICS}.variety:VendiMetric",
    "diversity": f"{_METRICS}.variety:PromptDiversityMetric",
    "lpips": f"{_METRICS}.lpips:LpipsMetric",
    "inception_score": f"{_METRICS}.inception_score:InceptionScoreMetric",
    "spread": f"{_METRICS}.variety:SpreadMetric",
    "flicker": f"{_METRICS}.motion:FlickerMetric",
    "consistency": f"{_METRICS}.motion:ConsistencyMetric",
}


def metric_names() -> tuple[str, ...]:
    """Every metric that there is."""
    return tuple(_BUILT_IN)


def metric_class(name: str) -> type[Metric]:
    """The class of one metric.

    Raises:
        ConfigError: There is no metric of that name; the message lists those there are.
    """
    if name not in _BUILT_IN:
        raise ConfigError(f"There is no metric {shown(name)}; there are: {', '.join(_BUILT_IN)}.")
    module, _, attribute = _BUILT_IN[name].partition(":")
    found: type[Metric] = getattr(import_module(module), attribute)
    return found


def create_metrics(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Metric, ...]:
    """Make metrics with their settings; nothing is loaded.

    Args:
        names: As typed after ``--metrics``; a repeated name is made once.
        settings: By the metric's name, the settings that differ from their defaults.

    Raises:
        ConfigError: A name or a setting is unknown, or a setting has a wrong value.
    """
    chosen = settings or {}
    for name in chosen:
        if name not in names:
            metric_class(name)
            raise ConfigError(f"There are settings for the metric {name}, which is not asked for; add it to --metrics.")
    return tuple(_create(name, chosen.get(name, {})) for name in dict.fromkeys(names))


def check_metrics(metrics: Sequence[Metric], items: Sequence[PromptItem], *, num_seeds: int, frames: int = 1) -> None:
    """Find out, without loading weights, whether every metric can score what will be drawn.

    Args:
        frames: Of a clip; 1 where pictures are drawn.

    Raises:
        ConfigError: A package or a checkpoint is missing, with the command that fixes it; or the prompts or the number
            of seeds or of pictures do not fit a metric.
    """
    for metric in metrics:
        metric.check(items)
        if metric.compares_frames and frames < 2:
            raise ConfigError(
                f"{metric.card.name} compares the frames of a clip, and here are single pictures; leave the metric out."
            )
        if num_seeds < metric.min_seeds:
            raise ConfigError(
                f"{metric.card.name} needs {metric.min_seeds} pictures of every prompt, but there is {num_seeds} seed; "
                f"give --seeds {metric.min_seeds} or more, or leave the metric out."
            )
        if len(items) * num_seeds < metric.min_pictures:
            raise ConfigError(
                f"{metric.card.name} needs {metric.min_pictures} pictures, but {len(items)} prompts with {num_seeds} "
                "of each make fewer; give more prompts or more --seeds, or leave the metric out."
            )


def _create(name: str, settings: Mapping[str, Any]) -> Metric:
    metric = metric_class(name)
    try:
        return metric(metric.settings_class.model_validate(dict(settings)))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join((name, *map(str, first["loc"])))
        known = ", ".join(metric.settings_class.model_fields)
        raise ConfigError(
            f"The setting {shown(setting, 200, quoted=False)} is {shown(first['input'])}: "
            f"{first['msg']}. The settings of {name} are: {known}."
        ) from error


_PAGE_HEAD = """# Metrics

Written by `fewstep evaluate metrics --markdown`; a test compares this page with the code. How to use them:
[evaluation](evaluation.md). `run against` names the program that papers use and how far ours was from it, both with the
same random weights: `python -m tools.originals` measures it.

"""


def lines_of_cards() -> Iterator[str]:
    """One line per metric."""
    for name in metric_names():
        card = metric_class(name).card
        yield f"{name:<12} {card.title}"


def page_of_cards() -> str:
    """Every card."""
    return _PAGE_HEAD + "\n".join(_card(name) for name in metric_names())


def _card(name: str) -> str:
    metric = metric_class(name)
    card = metric.card
    rows = {
        "formula": card.formula,
        "scale": card.scale,
        "better": "higher" if card.higher_is_better else "lower",
        "made from": _made_from(metric),
        "preprocessing": card.preprocessing,
        "checkpoint": _checkpoint(card),
        "licence": card.licence,
        "comparable": card.comparable,
        "run against": "; ".join(map(str, _comparisons().get(name, ()))) or "no original",
        "settings": ", ".join(
            f"`{field}`" + (f" ({known.description})" if known.description else "")
            for field, known in metric.settings_class.model_fields.items()
        ),
    }
    body = "".join(f"| {key} | {_cell(text)} |\n" for key, text in rows.items())
    return f"## {name}\n\n{card.title}\n\n| | |\n|---|---|\n{body}"


@dataclass(frozen=True)
class _Comparison:
    """How far a metric is from the program that papers use, on equal random weights; see ``tools/originals``."""

    original: str
    what: str
    difference: str

    def __str__(self) -> str:
        return f"{self.original}, {self.what}: {self.difference}"


@cache
def _comparisons() -> dict[str, list[_Comparison]]:
    return read_json(Path(__file__).with_name("originals.json"), dict[str, list[_Comparison]])


def _made_from(metric: type[Metric]) -> str:
    if metric.compares_frames:
        return "the frames of clips, compared with each other"
    return "the features of all pictures" if metric.of_sets else "each picture by itself"


def _checkpoint(card: MetricCard) -> str:
    if card.source is None:
        return "none of its own"
    packages = f", with {', '.join(card.packages)}" if card.packages else ""
    return f"`{card.source}`{packages}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
