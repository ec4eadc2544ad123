"""Rows of a prompt file: one table reader for txt, jsonl, json, csv and tsv."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.errors import ConfigError

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv")
Row = Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read a file as rows; a line of text, and a plain string of JSON, is a row with the one column ``prompt``.

    Raises:
        ConfigError: There is no such file, its suffix is unknown, or it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"The prompt file {path} ends in none of {', '.join(SUFFIXES)}; convert it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no prompt file {path}; check --prompts.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The prompt file {path} cannot be read as UTF-8 text: {error}.") from error
    if suffix == ".txt":
        return [{"prompt": line.strip()} for line in text.split("\n") if line.strip()]
    if suffix in (".csv", ".tsv"):
        # newline="": a quoted prompt may hold line breaks
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ","))
    return _json_rows(text, path) if suffix == ".json" else _jsonl_rows(text, path)


def _json_rows(text: str, path: Path) -> list[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"The prompt file {path} is not valid JSON: {error.msg} in line {error.lineno}.") from error
    if not isinstance(values, list):
        raise ConfigError(f"The prompt file {path} holds no JSON list; it must be a list of prompts or of objects.")
    return [_row(value) for value in values]


def _jsonl_rows(text: str, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_row(json.loads(line)))
            except json.JSONDecodeError as error:
                raise ConfigError(f"Line {number} of the prompt file {path} is not valid JSON: {error.msg}.") from error
    return rows


def _row(value: Any) -> Row:
    return value if isinstance(value, dict) else {"prompt": value}
