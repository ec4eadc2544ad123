"""The prompts of an evaluation: a named set from the hub, or a file.

No set is inside this package but the embedded teacher's own: several have no clear licence. The others are fetched from
where their authors put them, or read from a file that the user fetched.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fewstep.embedded.tasks import TASKS
from fewstep.errors import ConfigError
from fewstep.prompts.hub_files import HubFiles, fetched
from fewstep.prompts.tables import PROMPT_NAMES, files_of, open_table
from fewstep.prompts.text import require_prompt
from fewstep.scores.metric import PromptItem

_Columns = Mapping[str, Any]
_ID_COLUMNS = ("id", "item_id", "image_id")
_DPG_COLUMNS = {"item_id", "text", "proposition_id", "dependency", "question_natural_language"}


@dataclass(frozen=True)
class PromptSet:
    """Prompts with names.

    Attributes:
        name: Of the set, or of the file.
        items: In the set's order, no text twice.
        note: A sentence about rows that were left out, when there are any.
    """

    name: str
    items: tuple[PromptItem, ...]
    note: str | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 of ids, texts and facts, in order."""
        plain = [[item.id, item.text, item.facts] for item in self.items]
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def first(self, count: int | None) -> "PromptSet":
        """The first ``count`` prompts; all of them for None."""
        return self if count is None else replace(self, items=self.items[:count])


@dataclass(frozen=True)
class _HubTable:
    """A dataset of the hub that the ``datasets`` package reads."""

    dataset: str
    split: str


@dataclass(frozen=True)
class _NamedSet:
    """Where a set is, and what is known of it.

    Attributes:
        what: One line for people.
        licence: As far as its authors state one.
        hub: Where it is on the hub; None where it is not there in its authors' form.
        address: Where its authors put it.
    """

    what: str
    licence: str
    hub: _HubTable | HubFiles | None
    address: str


NAMED: dict[str, _NamedSet] = {
    "drawbench": _NamedSet(
        "200 prompts in 11 categories (Imagen)",
        "stated as Apache-2.0 by a mirror; its authors state none",
        _HubTable("sayakpaul/drawbench", "train"),
        "https://huggingface.co/datasets/sayakpaul/drawbench",
    ),
    "parti": _NamedSet(
        "1,632 PartiPrompts",
        "Apache-2.0",
        HubFiles("nateraw/parti-prompts", ("PartiPrompts.tsv",)),
        "https://github.com/google-research/parti",
    ),
    "geneval": _NamedSet(
        "553 prompts about objects, counts, colours and positions, with what must be seen",
        "MIT",
        None,
        "https://github.com/djghosh13/geneval/blob/main/prompts/evaluation_metadata.jsonl",
    ),
    "dpgbench": _NamedSet(
        "1,065 long prompts, each with a graph of questions",
        "that of the ELLA repository, Apache-2.0",
        None,
        "https://github.com/TencentQQGYLab/ELLA/blob/main/dpg_bench/dpg_bench.csv",
    ),
    "coco": _NamedSet(
        "the first caption of each picture of the 5,000 of MS COCO 2017 val",
        "captions CC BY 4.0",
        _HubTable("phiyodr/coco2017", "validation"),
        "https://huggingface.co/datasets/phiyodr/coco2017",
    ),
    "pickapic": _NamedSet(
        "the distinct prompts of the test split of Pick-a-Pic v2",
        "stated as MIT on its page",
        _HubTable("yuvalkirstain/pickapic_v2_no_images", "test"),
        "https://huggingface.co/datasets/yuvalkirstain/pickapic_v2_no_images",
    ),
    "hpd": _NamedSet(
        "3,200 prompts in 4 styles, the benchmark of HPS v2",
        "Apache-2.0",
        HubFiles("zhwang/HPDv2", tuple(f"benchmark/{s}.json" for s in ("anime", "concept-art", "paintings", "photo"))),
        "https://huggingface.co/datasets/zhwang/HPDv2",
    ),
    "mjhq": _NamedSet(
        "30,000 prompts in 10 categories, those of MJHQ-30K's pictures, which are a reference for fid",
        "none stated",
        HubFiles("playgroundai/MJHQ-30K", ("meta_data.json",)),
        "https://huggingface.co/datasets/playgroundai/MJHQ-30K",
    ),
    "t2i-compbench": _NamedSet(
        "2,400 prompts in 8 categories about attributes, relations, counts and what combines them",
        "MIT, that of its repository",
        None,
        "https://github.com/Karine-Huang/T2I-CompBench/tree/main/examples/dataset (its eight files *_val.txt)",
    ),
    "ocr": _NamedSet(
        "1,018 prompts with the text to be drawn in double quotes (Flow-GRPO)",
        "MIT, that of its repository",
        None,
        "https://github.com/yifan123/flow_grpo/blob/main/dataset/ocr/test.txt",
    ),
}
_EMBEDDED = {name: task for task in TASKS.values() for name in task.prompt_sets}


def prompt_set_names() -> tuple[str, ...]:
    """Every name that ``--prompts`` takes."""
    return (*_EMBEDDED, *NAMED)


def load_prompt_set(source: str) -> PromptSet:
    """Load prompts.

    Args:
        source: A name, a file, or ``NAME=FILE`` for a copy of a named set.

    Raises:
        ConfigError: There is no such set or file, it cannot be fetched, or it holds no prompt.
    """
    name, _, file = source.partition("=")
    if file and name in NAMED:
        return prompt_set(name, _read(Path(file)))
    if source in _EMBEDDED:
        texts = _EMBEDDED[source].prompts(source)
        return PromptSet(source, tuple(PromptItem(_as_id(text), text) for text in texts))
    if source in NAMED:
        return prompt_set(source, _fetch(source, NAMED[source]))
    if Path(source).suffix or os.path.exists(source):
        return prompt_set(Path(source).stem, _read(Path(source)))
    raise ConfigError(f"--prompts is {source!r}, which is no file and none of {', '.join(prompt_set_names())}.")


def _read(path: Path) -> list[_Columns]:
    """All rows of a file of prompts, with the columns beside them."""
    files = files_of(path)
    rows = [(file, row.columns) for file in files for table in (open_table(file),) for row in table.rows(table.names)]
    return [columns if len(files) == 1 else {**columns, "file": file.stem} for file, columns in rows]


def prompt_set(name: str, rows: Sequence[_Columns]) -> PromptSet:
    """Make a set of a table's rows: one item per distinct prompt, its other columns as facts.

    A table of DPG-Bench, with a row per question, becomes one item per prompt with its questions.
    """
    if rows and rows[0].keys() >= _DPG_COLUMNS:
        rows = _grouped(rows)
    items: dict[str, PromptItem] = {}
    blank = 0
    for number, row in enumerate(rows):
        text, column = _text(name, row, number)
        blank += not text
        if text and text not in items:
            facts = {key: value for key, value in row.items() if key != column}
            # as JSON gives them back: the score phase reads them from the evaluation's folder
            items[text] = PromptItem(_id(row, number), text, json.loads(json.dumps(facts, default=str)))
    if not items:
        raise ConfigError(f"There is no prompt in {name}; give a file with at least one.")
    _require_distinct_ids(name, tuple(items.values()))
    repeated = len(rows) - blank - len(items)
    note = None
    if blank + repeated:
        note = (
            f"Of {len(rows)} rows of {name}, {blank} have no prompt and {repeated} repeat an earlier one; "
            f"{len(items)} prompts are drawn, each once."
        )
    return PromptSet(name, tuple(items.values()), note)


def _text(name: str, row: _Columns, number: int) -> tuple[str, str]:
    """A row's prompt and the column it stands in; of a list of captions the first."""
    column = next((column for name in PROMPT_NAMES for column in row if column.casefold() == name), None)
    value = row[column] if column is not None else None
    if column is not None and column.casefold().startswith("caption") and isinstance(value, list) and value:
        value = value[0]
    if column is None or not isinstance(value, str):
        raise ConfigError(
            f"Row {number + 1} of {name} has no text in a column called {' or '.join(PROMPT_NAMES)}; its columns are "
            f"{', '.join(map(str, row))}. Rename the column of the prompts."
        )
    return require_prompt(value, place=f"Row {number + 1} of {name}").strip(), column


def _id(row: _Columns, number: int) -> str:
    stated = next((row[column] for column in _ID_COLUMNS if row.get(column) not in (None, "")), None)
    return f"{number:05d}" if stated is None else re.sub(r"[^A-Za-z0-9_-]", "_", str(stated))


def _require_distinct_ids(name: str, items: Sequence[PromptItem]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ConfigError(f"Two prompts of {name} have the id {item.id!r}; make the ids distinct.")
        seen.add(item.id)


def _grouped(rows: Sequence[_Columns]) -> list[_Columns]:
    grouped: dict[str, dict[str, Any]] = {}
    for row in rows:
        item = grouped.setdefault(str(row["item_id"]), {"id": row["item_id"], "prompt": row["text"], "questions": []})
        item["questions"].append(dict(row))
    return list(grouped.values())


def _as_id(text: str) -> str:
    return text.replace(",", "").replace(" ", "-")


def _fetch(name: str, found: _NamedSet) -> list[_Columns]:
    instead = f"fetch it from {found.address} and give --prompts {name}=FILE"
    match found.hub:
        case None:
            raise ConfigError(f"The prompt set {name} is not on the hub in its authors' form; {instead}.")
        case HubFiles():
            return _fetch_files(name, found.hub, instead)
        case _HubTable():
            return _fetch_table(name, found.hub, instead)


def _fetch_files(name: str, hub: HubFiles, instead: str) -> list[_Columns]:
    paths = fetched(name, hub.fetch, instead=instead)
    return [{**row, "file": path.stem} for path in paths for row in _read(path)]


def _fetch_table(name: str, hub: _HubTable, instead: str) -> list[_Columns]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            f"The prompt set {name} is read with the package datasets; install it with: pip install 'fewstep[eval]'."
        ) from error
    table = fetched(name, lambda: load_dataset(hub.dataset, split=hub.split), instead=instead)
    rows: list[Mapping[str, Any]] = [dict(row) for row in table]
    return rows
