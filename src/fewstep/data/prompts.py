"""Prompts of a run, from where its recipe says they are."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, assert_never

from fewstep.config.run_config import DemoPrompts, HubPrompts, PromptFile
from fewstep.errors import ConfigError

SUFFIXES = (".txt", ".jsonl", ".csv")


def load_prompts(source: PromptFile | DemoPrompts | HubPrompts) -> tuple[str, ...]:
    """Read prompts without blank ones and repetitions, in the order in which they first appear.

    Raises:
        ConfigError: There is no such file, column or dataset, it cannot be read, or it holds no prompt.
    """
    match source:
        case PromptFile():
            prompts, place = _from_file(Path(source.path), source.column), source.path
        case DemoPrompts():
            prompts, place = _from_demo(), "the embedded prompts"
        case HubPrompts():
            prompts, place = _from_hub(source), f"the column {source.column} of {source.dataset}"
        case _:
            assert_never(source)
    stripped = (prompt.strip() for prompt in prompts)
    distinct = tuple(dict.fromkeys(prompt for prompt in stripped if prompt))
    if not distinct:
        raise ConfigError(f"There is no prompt in {place}; a run needs at least one that is not blank.")
    return distinct


def _from_file(path: Path, column: str | None) -> Iterable[str]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"prompts.path is {path}, and its suffix is none of {', '.join(SUFFIXES)}; convert the file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no prompt file {path}; set prompts.path to a txt, jsonl or csv file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The prompt file {path} cannot be read as UTF-8 text: {error}.") from error
    if suffix == ".txt":
        if column is not None:
            raise ConfigError(
                f"prompts.column is '{column}', but {path} is a txt file, which has no columns; remove it."
            )
        return text.split("\n")
    rows = _csv_rows(text) if suffix == ".csv" else _jsonl_rows(text, path)
    return _column(rows, column, path)


def _csv_rows(text: str) -> list[dict[str, Any]]:
    # newline="": a quoted prompt may hold line breaks
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _jsonl_rows(text: str, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"Line {number} of the prompt file {path} is not valid JSON: {error.msg}.") from error
        rows.append(row if isinstance(row, dict) else {"prompt": row})
    return rows


def _column(rows: Sequence[dict[str, Any]], column: str | None, path: Path) -> list[str]:
    """The named column; without a name the only one, or the one called prompt."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if column is None and rows:
        column = "prompt" if "prompt" in names else names[0] if len(names) == 1 else None
        if column is None:
            raise ConfigError(f"{path} has the columns {', '.join(map(str, names))}; name one with prompts.column.")
    prompts = []
    for number, row in enumerate(rows, start=1):
        value = row.get(column) if column is not None else None
        if not isinstance(value, str):
            found = "is missing" if value is None else f"is {value!r}"
            raise ConfigError(
                f"The column '{column}' (prompts.column) {found} in row {number} of {path}; it must be a text in every "
                f"row. The columns are {', '.join(map(str, names))}."
            )
        prompts.append(value)
    return prompts


def _from_demo() -> list[str]:
    # imported here: prompts of a file need nothing of the demo
    from fewstep.demo.digits import all_prompts

    return all_prompts()


def _from_hub(source: HubPrompts) -> list[str]:
    place = f"prompts.dataset is '{source.dataset}'"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            f"{place}, and reading it needs the package datasets; install it with: pip install 'fewstep[hub]'."
        ) from error
    try:
        rows = load_dataset(source.dataset, split=source.split, revision=source.revision)
    except Exception as error:
        # datasets raises many unrelated types for a wrong id, a wrong split, a gated dataset and no network
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{place} with split '{source.split}', and it cannot be loaded: {reason}.") from error
    if source.column not in rows.column_names:
        raise ConfigError(
            f"prompts.column is '{source.column}', which {source.dataset} does not have; "
            f"its columns are {', '.join(rows.column_names)}."
        )
    return [prompt for prompt in rows[source.column] if isinstance(prompt, str)]
