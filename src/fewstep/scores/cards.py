"""The cards of all metrics: as lines for a terminal, and as the page docs/metrics.md."""

from collections.abc import Iterator

from fewstep.scores.metric import MetricCard
from fewstep.scores.registry import metric_class, metric_names

HEAD = """# Metrics

Written by `fewstep evaluate metrics --markdown`; a test compares this page with the code. How to use them:
[evaluation](evaluation.md).

"""


def as_lines() -> Iterator[str]:
    """One line per metric."""
    for name in metric_names():
        card = metric_class(name).card
        yield f"{name:<12} {card.title}"


def as_markdown() -> str:
    """Every card."""
    return HEAD + "\n".join(_card(name) for name in metric_names())


def _card(name: str) -> str:
    metric = metric_class(name)
    card = metric.card
    rows = {
        "formula": card.formula,
        "scale": card.scale,
        "better": "higher" if card.higher_is_better else "lower",
        "made from": "the features of all pictures" if metric.of_sets else "each picture by itself",
        "preprocessing": card.preprocessing,
        "checkpoint": _checkpoint(card),
        "licence": card.licence,
        "comparable": card.comparable,
        "settings": ", ".join(
            f"`{field}`" + (f" ({known.description})" if known.description else "")
            for field, known in metric.settings_class.model_fields.items()
        ),
    }
    body = "".join(f"| {key} | {_cell(text)} |\n" for key, text in rows.items())
    return f"## {name}\n\n{card.title}\n\n| | |\n|---|---|\n{body}"


def _checkpoint(card: MetricCard) -> str:
    if card.source is None:
        return "none of its own"
    packages = f", with {', '.join(card.packages)}" if card.packages else ""
    return f"`{card.source}`{packages}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
