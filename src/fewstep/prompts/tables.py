"""Any file of prompts as rows with columns, read as a stream: a file of any length takes the memory of a few rows."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from fewstep.errors import ConfigError, shown
from fewstep.files import UnreadableError, parse_json, read_json
from fewstep.prompts import parquet
from fewstep.prompts.archives import TEXT, samples
from fewstep.prompts.delimited import records
from fewstep.prompts.lines import lines

_SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".tar")
_SHARDS = (".parquet", ".tar")
_PROMPT = "prompt"
PROMPT_NAMES = (_PROMPT, TEXT, "prompts", "caption", "captions", "text")
"""What people call the column of the prompts, in small or capital letters: a header of one such name is no prompt."""


class _Row(NamedTuple):
    """Where a row stands, as the beginning of a sentence, and its columns."""

    place: str
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class _Table:
    """A file that was opened.

    Attributes:
        path: The file.
        names: Of the columns, as its header, its schema or its first row has them; none for a file without rows.
        rows: Reads the rows; columns that are not asked for may be left out.
    """

    path: Path
    names: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[_Row]]

    def prompt_column(self, column: str | None) -> str:
        """The named column; without a name the one that a format or the word prompt means, or the only one.

        Raises:
            ConfigError: There is no such column, or there are several and none is meant.
        """
        listed = shown(", ".join(self.names), 300, quoted=False)
        if column is not None:
            if column not in self.names:
                raise ConfigError(
                    f"prompts.column is {shown(column)}, which {self.path} does not have; its columns are {listed}."
                )
            return column
        meant = [name for name in (_PROMPT, TEXT) if name in self.names] or self.names
        if len(meant) > 1 and meant[0] != _PROMPT:
            raise ConfigError(
                f"{self.path} has the columns {listed}; name one with prompts.column, or call one of them prompt."
            )
        return meant[0]


def files_of(path: Path) -> list[Path]:
    """The files that a path means: itself, the shards in a folder, or what a pattern such as ``part-*.tar`` finds.

    Raises:
        ConfigError: A folder or a pattern has no file of prompts.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SHARDS)
        if not found:
            raise ConfigError(f"{path} is a folder without {' and '.join(_SHARDS)} files; name a file of prompts.")
        return found
    if "*" in path.name and not path.exists():
        found = sorted(path.parent.glob(path.name))
        if not found:
            raise ConfigError(f"No file is called like {path}; check the pattern.")
        return found
    return [path]


def open_table(path: Path, column: str | None = None) -> _Table:
    """Open a file by its suffix.

    Args:
        path: The file.
        column: What the user calls the column of the prompts.

    Raises:
        ConfigError: The file is missing, of another kind, or cannot be read.
    """
    match path.suffix.lower():
        case ".txt":
            if column is not None:
                raise ConfigError(
                    f"prompts.column is {shown(column)}, but {path} is a txt file, which has no columns; remove it."
                )
            filled = ((number, text) for number, text in lines(path) if text.strip())
            return _stream(path, (_Row(f"Line {number} of {path}", {_PROMPT: text}) for number, text in filled))
        case ".jsonl":
            return _stream(path, _jsonl(path))
        case ".json":
            return _stream(path, _json(path))
        case ".csv":
            return _delimited(path, ",", column)
        case ".tsv":
            return _delimited(path, "\t", column)
        case ".tar":
            return _stream(path, itertools.starmap(_Row, samples(path)))
        case ".parquet":
            return _Table(path, parquet.column_names(path), partial(_parquet, path))
    raise ConfigError(f"The prompt file {path} ends in none of {', '.join(_SUFFIXES)}; convert it.")


def _stream(path: Path, found: Iterator[_Row]) -> _Table:
    """A table whose first row tells the names."""
    first = next(found, None)
    if first is None:
        return _Table(path, (), lambda names: iter(()))
    return _Table(path, tuple(first.columns), lambda names: itertools.chain([first], found))


def _delimited(path: Path, delimiter: str, column: str | None) -> _Table:
    found = records(path, delimiter)
    header = next(found, None)
    names = () if header is None else tuple(header.fields)
    if len(names) == 1 and names[0] != column and names[0].casefold() not in PROMPT_NAMES:
        raise ConfigError(
            f"The first line of {path} is {shown(names[0])}, which does not look like the name of a column. If it is a "
            "prompt, write a line prompt above it; if it is the name, call it prompt (a recipe may say prompts.column)."
        )
    rows = (_Row(f"Line {record.line} of {path}", dict(zip(names, record.fields, strict=True))) for record in found)
    return _Table(path, names, lambda asked: rows)


def _parquet(path: Path, names: Sequence[str]) -> Iterator[_Row]:
    return (_Row(f"Row {number} of {path}", row) for number, row in enumerate(parquet.rows(path, names), start=1))


def _jsonl(path: Path) -> Iterator[_Row]:
    for number, line in lines(path):
        if line.strip():
            place = f"Line {number} of {path}"
            try:
                value: Any = parse_json(line, object)
            except UnreadableError as error:
                raise ConfigError(f"{place} cannot be used: {error}.") from error
            yield _Row(place, _columns(value))


def _by_id(value: Any) -> Any:
    """An object of objects as a list of them, each with its key as its id."""
    if isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
        return [{"id": key, **inner} for key, inner in value.items()]
    return value


_Rows = Annotated[list[Any], BeforeValidator(_by_id)]


def _json(path: Path) -> Iterator[_Row]:
    try:
        values = read_json(path, _Rows)
    except UnreadableError as error:
        raise ConfigError(
            f"The prompt file {path} cannot be used: {error}. It must be a JSON list of prompts or of objects; "
            "save a long one as .jsonl, with each on a line of its own."
        ) from error
    for number, value in enumerate(values, start=1):
        yield _Row(f"Row {number} of {path}", _columns(value))


def _columns(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {_PROMPT: value}
