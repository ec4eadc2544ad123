"""prompts.html: every prompt of an evaluation with every model's pictures and scores, beside the report.

The pictures stay files of the evaluation's folder and are loaded as they come into view, so that thousands of prompts
are one page; it moves with its folder.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.report import page
from fewstep.evaluation.scoring import Scored
from fewstep.files import write_text
from fewstep.scores.metric import PromptItem

PROMPTS_FILE = "prompts.html"
_Told = Mapping[tuple[str, str, int], Sequence[str]]
"""By model, prompt id and seed, what each metric says of a picture."""


def write_prompts_page(folder: EvaluationFolder, task: Task, scored: Sequence[Scored]) -> None:
    """Write the page into the evaluation's folder, whole or not at all."""
    records = tuple({one.record.entry.name: one.record for one in scored}.values())
    told = _told(scored)
    cases = "".join(_case(folder, task, item, records, told) for item in task.prompts.items)
    count = f"{len(task.prompts.items)} prompts ({task.prompts.name})"
    sections = [
        f'<h1>Every prompt</h1><p class="lead">{escape(count)}; a picture opens in its own size. '
        '<a href="report.html">The report</a></p>',
        f'<div class="all">{cases}</div>',
    ]
    write_text(folder.path / PROMPTS_FILE, page(f"fewstep: {count}", sections))


def _told(scored: Sequence[Scored]) -> _Told:
    told: dict[tuple[str, str, int], list[str]] = {}
    for one in scored:
        if one.metric.of_sets:
            continue
        found: dict[tuple[str, int], list[float]] = {}
        for picture, finding in zip(one.pictures, one.findings, strict=True):
            found.setdefault((picture.item.id, picture.seed), []).append(finding.score)
        for (item, seed), scores in found.items():
            text = f"{one.metric.card.name} {sum(scores) / len(scores):.4g}"
            told.setdefault((one.record.entry.name, item, seed), []).append(text)
    return told


def _case(folder: EvaluationFolder, task: Task, item: PromptItem, records: Sequence[ModelRecord], told: _Told) -> str:
    tiles = [_tile(folder, record, item, seed, told) for record in records for seed in task.seeds]
    return (
        f'<div class="case" id="{item.id}"><div class="prompt"><a href="#{item.id}">{item.id}</a> '
        f"<b>{escape(item.text)}</b></div>{''.join(tiles)}</div>"
    )


def _tile(folder: EvaluationFolder, record: ModelRecord, item: PromptItem, seed: int, told: _Told) -> str:
    entry = record.entry
    paths = folder.picture_paths(entry, item, seed, entry.sampling.steps)
    source = escape(quote(_shown(paths).relative_to(folder.path).as_posix()))
    caption = ", ".join((f"{entry.name}, seed {seed}", *told.get((entry.name, item.id, seed), ())))
    return (
        f'<figure class="tile"><a href="{source}"><img loading="lazy" src="{source}" alt="{escape(caption)}"></a>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _shown(frames: Sequence[Path]) -> Path:
    """The picture, or the middle frame of a clip."""
    return frames[len(frames) // 2]
