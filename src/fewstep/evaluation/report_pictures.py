"""The pictures of report.html: side by side, best and worst prompts, many seeds of one prompt, the ladder of steps.

And sheets: many small pictures as one, without a file of each.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from fewstep.errors import CheckpointError
from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.generate import strip_seeds
from fewstep.evaluation.models import Side
from fewstep.evaluation.scoring import Scored
from fewstep.evaluation.table import per_prompt
from fewstep.files import UnreadableError
from fewstep.scores.pictures import read_picture, three_frames

_SIDE = 320
"""Pixels of a picture inside the report; a smaller picture stays as it is."""
_SMALL = 64
_SHOWN_PROMPTS = 8
_EXTREMES = 3


def tile(paths: Sequence[Path], caption: str) -> str:
    """One picture, or three frames of one clip, with a line under it, inside the page; what was never drawn says so."""
    shown = paths if len(paths) == 1 else [paths[frame] for frame in three_frames(len(paths))]
    if not all(path.is_file() for path in shown):
        return f'<figure class="tile"><figcaption>{escape(caption)}: not drawn</figcaption></figure>'
    images = [_read(path) for path in shown]
    css = ' class="small"' if max(images[0].size) <= _SMALL else ""
    for image in images:
        if max(image.size) > _SIDE:
            image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    source = _data_url(_row(images), exact=bool(css))
    return (
        f'<figure class="tile{" clip" * (len(shown) > 1)}"><img{css} src="{source}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _read(path: Path) -> Image.Image:
    try:
        return read_picture(path)
    except UnreadableError as error:
        raise CheckpointError(
            f"The report cannot show {path}: {error}. Remove the file, and draw it again with --phase generate."
        ) from error


def _row(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side."""
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)))
    for number, image in enumerate(images):
        row.paste(image, (sum(before.width for before in images[:number]), 0))
    return row


def _data_url(image: Image.Image, *, exact: bool) -> str:
    """A picture inside a URL: every pixel as it is, or smaller."""
    buffer = io.BytesIO()
    kind = "png" if exact else "jpeg"
    image.save(buffer, format=kind.upper(), **({"optimize": True} if exact else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Sheet:
    """Many small pictures in rows, with what was asked for each.

    Attributes:
        pixels: Bytes, one picture per prompt.
        prompts, seeds: One per picture.
        columns: Pictures in a row.
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    columns: int

    def rows(self, first: int, last: int) -> "Sheet":
        """The rows from ``first`` up to, and without, ``last``."""
        part = slice(first * self.columns, last * self.columns)
        return Sheet(self.pixels[part], self.prompts[part], self.seeds[part], self.columns)

    def mosaic(self) -> UInt8[Tensor, "h w 3"]:
        """All pictures as one, without gaps."""
        rows = [torch.cat(list(row), dim=2) for row in torch.split(self.pixels, self.columns)]
        return torch.cat(rows, dim=1).permute(1, 2, 0).contiguous()


@dataclass(frozen=True)
class CaptionedSheet:
    """One model's sheet; what stands above it."""

    sheet: Sheet
    title: str
    caption: str
    role: Side | None


def sheets_side_by_side(heading: str, note: str, sheets: Sequence[CaptionedSheet]) -> str:
    """The same prompts and seeds of several models; pointing at a picture tells its prompt."""
    return (
        f'<h2>{escape(heading)}</h2><p class="note">{escape(note)}</p>'
        f'<div class="sheets">{"".join(map(_sheet, sheets))}</div>'
    )


def _sheet(shown: CaptionedSheet) -> str:
    sheet = shown.sheet
    cells = "".join(
        f'<i title="{escape(prompt)}, seed {seed}"></i>'
        for prompt, seed in zip(sheet.prompts, sheet.seeds, strict=True)
    )
    source = _data_url(Image.fromarray(sheet.mosaic().numpy()), exact=True)
    return (
        f'<div class="{shown.role or ""}"><h3>{escape(shown.title)}</h3><p class="note">{escape(shown.caption)}</p>'
        f'<div class="sheet"><img src="{source}" alt="{len(sheet.prompts)} pictures: {escape(shown.title)}">'
        f'<div style="grid-template-columns: repeat({sheet.columns}, 1fr)">{cells}</div></div></div>'
    )


def side_by_side(folder: EvaluationFolder, task: Task, records: Sequence[ModelRecord]) -> str:
    """The first prompts, every model's picture of the first seed."""
    rows = []
    own = any(record.entry.role != "pictures" for record in records)
    noise = " All models start from the noise that prompt and seed name." if own else ""
    for item in task.prompts.items[:_SHOWN_PROMPTS]:
        tiles = [_model_tile(folder, record, item.id, task) for record in records]
        rows.append(f'<div class="prompt"><b>{escape(item.text)}</b></div>{"".join(tiles)}')
    return (
        f"<h2>Side by side</h2>"
        f'<p class="note">The first prompts of the set, seed {task.seeds[0]}, nothing picked.{noise}</p>'
        f"{_grid(len(records), rows)}"
    )


def best_and_worst(folder: EvaluationFolder, task: Task, scored: Sequence[Scored]) -> str:
    """For every student and image metric, the prompts where it gains and loses most against the teacher."""
    parts: list[str] = []
    for one in scored:
        if one.metric.of_sets or one.record.entry.role == "teacher":
            continue
        teacher = next(
            (
                other
                for other in scored
                if other.record.entry.role == "teacher" and other.metric.card.name == one.metric.card.name
            ),
            None,
        )
        if teacher is not None and (part := _extremes(folder, task, one, teacher, opened=not parts)):
            parts.append(part)
    if not parts:
        return ""
    return (
        "<h2>Best and worst prompts</h2>"
        '<p class="note">By each metric that scores single pictures: where the student gains most on the teacher, and '
        f"where it loses most.</p>{''.join(parts)}"
    )


def _extremes(folder: EvaluationFolder, task: Task, student: Scored, teacher: Scored, *, opened: bool) -> str:
    """Of one metric; nothing where it scores every prompt of both alike."""
    count = len(task.prompts.items)
    own, other = per_prompt(student, count), per_prompt(teacher, count)
    gain = (own - other) if student.metric.card.higher_is_better else (other - own)
    order = gain.argsort(descending=True, stable=True).tolist()
    best = [position for position in order if gain[position] > 0][:_EXTREMES]
    worst = [position for position in reversed(order) if gain[position] < 0][:_EXTREMES]
    if not best and not worst:
        return ""
    rows = []
    for label, positions in (("best", best), ("worst", worst)):
        for position in positions:
            item = task.prompts.items[position]
            pictures = []
            for one, values in ((student, own), (teacher, other)):
                entry = one.record.entry
                paths = folder.picture_paths(entry, item, task.seeds[0], entry.sampling.steps)
                pictures.append(tile(paths, f"{entry.name}: {float(values[position]):.4g}"))
            rows.append(f'<div class="prompt"><span>{label}</span> <b>{escape(item.text)}</b></div>{"".join(pictures)}')
    name = f"{student.metric.card.name}: {student.record.entry.name} against {teacher.record.entry.name}"
    return f"<details{' open' if opened else ''}><summary>{escape(name)}</summary>{_grid(2, rows)}</details>"


def diversity_strip(folder: EvaluationFolder, task: Task, records: Sequence[ModelRecord]) -> str:
    """One prompt, many seeds, a line per model."""
    given = all(record.entry.role == "pictures" for record in records)
    seeds = task.seeds[: task.extras.strip_seeds] if given else strip_seeds(task)
    if len(seeds) < 2 or task.extras.strip_prompts < 1:
        return ""
    rows = []
    for item in task.prompts.items[: task.extras.strip_prompts]:
        for record in records:
            entry = record.entry
            tiles = [
                tile(folder.picture_paths(entry, item, seed, entry.sampling.steps), f"seed {seed}") for seed in seeds
            ]
            rows.append(
                f'<div class="prompt"><b>{escape(item.text)}</b> <span>{escape(entry.name)}</span></div>'
                f"{''.join(tiles)}"
            )
    return (
        "<h2>One prompt, many seeds</h2>"
        '<p class="note">A student that draws the same few pictures again and again has lost the teacher&rsquo;s '
        f"variety, whatever its scores say.</p>{_grid(len(seeds), rows)}"
    )


def step_ladder(folder: EvaluationFolder, task: Task, records: Sequence[ModelRecord]) -> str:
    """The same prompts at several numbers of steps, a line per model."""
    ladder = task.extras.ladder
    records = [record for record in records if record.entry.role != "pictures"]
    if not ladder or not records or task.extras.ladder_prompts < 1:
        return ""
    rows = []
    for item in task.prompts.items[: task.extras.ladder_prompts]:
        for record in records:
            tiles = [
                tile(folder.picture_paths(record.entry, item, task.seeds[0], steps), _rung(record, steps))
                for steps in ladder
            ]
            rows.append(
                f'<div class="prompt"><b>{escape(item.text)}</b> <span>{escape(record.entry.name)}</span></div>'
                f"{''.join(tiles)}"
            )
    return (
        "<h2>Steps and network calls</h2>"
        f'<p class="note">The same noise at {", ".join(map(str, ladder))} steps. At its own number a student follows '
        "the grid it was trained on; at others, the shifted uniform one.</p>"
        f"{_grid(len(ladder), rows)}"
    )


def _rung(record: ModelRecord, steps: int) -> str:
    label = "1 step" if steps == 1 else f"{steps} steps"
    own = record.entry.sampling.steps
    if record.calls_per_picture is None or own is None:
        return label
    # guidance doubles the calls of every step
    calls = record.calls_per_picture * steps / own
    return f"{label}, {calls:g} {'call' if calls == 1 else 'calls'}"


def _model_tile(folder: EvaluationFolder, record: ModelRecord, item_id: str, task: Task) -> str:
    item = next(item for item in task.prompts.items if item.id == item_id)
    entry, steps = record.entry, record.entry.sampling.steps
    told = entry.name if steps is None else f"{entry.name}, {steps} steps"
    return tile(folder.picture_paths(entry, item, task.seeds[0], steps), told)


def _grid(columns: int, rows: Sequence[str]) -> str:
    """Prompts beside each other as far as the page is wide, each with its pictures in one line."""
    width = 110 if any('class="small"' in row for row in rows) else 230
    width *= 3 if any('class="tile clip"' in row for row in rows) else 1
    style = f"grid-template-columns: repeat({columns}, minmax(0, {width}px))"
    cases = "".join(f'<div class="case" style="{style}">{row}</div>' for row in rows)
    return f'<div class="cases">{cases}</div>'
