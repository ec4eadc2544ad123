"""Tables with commas or tabs, read strictly: what could be cut, joined or renamed in silence is refused.

A field in double quotes may hold delimiters, line breaks and doubled quotes. Quotes inside a field that does not begin
with one stand for themselves; in a table with commas they have to come in pairs.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewstep.errors import ConfigError, shown
from fewstep.files import MAX_LINE_BYTES
from fewstep.prompts.lines import lines

_OTHER_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_MAX_FIELD_LINES = 2**16
"""Of one field in quotes: what is longer was never closed."""
_QUOTE_CURE = 'put the whole field in double quotes and write each quote inside it twice ("")'


@dataclass(frozen=True)
class _Record:
    """One row: the number of its first line, and its fields."""

    line: int
    fields: list[str]


def records(path: Path, delimiter: str) -> Iterator[_Record]:
    """The rows of a table, its header first; each has as many fields as the header. Blank lines are no rows.

    Raises:
        ConfigError: A quote is not balanced, or a row has more or fewer fields than the header.
    """
    header: _Record | None = None
    for record in _records(path, delimiter):
        if header is None:
            header = _header(record, path, delimiter)
            yield header
        elif len(record.fields) > 1 or record.fields[0].strip():
            _require_fields(record, header, path, delimiter)
            yield record


def _records(path: Path, delimiter: str) -> Iterator[_Record]:
    numbered = lines(path)
    for first, text in numbered:
        if '"' not in text:
            yield _Record(first, text.split(delimiter))
            continue
        fields = _fields(text, delimiter, f"Line {first} of {path}")
        if fields is None:  # a quoted field goes on in the next lines, to the first with an odd number of quotes
            whole = _to_closing_quote(numbered, first, text, path)
            fields = _fields(whole, delimiter, f"Line {first} of {path}")
        if fields is None:
            raise _unbalanced(first, path)
        yield _Record(first, fields)


def _to_closing_quote(numbered: Iterator[tuple[int, str]], first: int, text: str, path: Path) -> str:
    parts, size = [text], len(text)
    for _, more in itertools.islice(numbered, _MAX_FIELD_LINES):
        parts.append(more)
        size += len(more)
        if size > MAX_LINE_BYTES:
            break
        if more.count('"') % 2:
            return "\n".join(parts)
    raise _unbalanced(first, path)


def _unbalanced(line: int, path: Path) -> ConfigError:
    return ConfigError(f"Line {line} of {path} opens a double quote that is not closed; close it, or {_QUOTE_CURE}.")


def _fields(text: str, delimiter: str, place: str) -> list[str] | None:
    """The fields of one record, or None where its last field is still open."""
    found, start = [], 0
    while True:
        end = text.find(delimiter, start)
        end = len(text) if end < 0 else end
        if text.startswith('"', start):
            quoted = _QUOTED.match(text, start)
            if quoted is None:
                return None
            if quoted.end() == len(text) or text[quoted.end()] == delimiter:
                end, field = quoted.end(), quoted[1].replace('""', '"')
            else:
                field = _literal(text[start:end], delimiter, place)
        else:
            field = _literal(text[start:end], delimiter, place)
        found.append(field)
        if end == len(text):
            return found
        start = end + 1


def _literal(field: str, delimiter: str, place: str) -> str:
    """A field that is not in quotes; tables with tabs have no quotes by themselves, so theirs are taken as they are."""
    pairs = field.count('"') % 2 == 0
    if "\n" in field or (delimiter == "," and (not pairs or field.startswith('"'))) or not (pairs or field[0] != '"'):
        raise ConfigError(f"{place} has a double quote in the middle of the field {shown(field, 60)}; {_QUOTE_CURE}.")
    return field


def _header(record: _Record, path: Path, delimiter: str) -> _Record:
    names = [name.strip() for name in record.fields]
    counts = Counter(names)
    repeated = next((name for name in names if counts[name] > 1), None)
    if repeated is not None:
        raise ConfigError(
            f"The first line of {path} names the column {shown(repeated)} twice; each column needs a name of its own."
        )
    for other, plural in _OTHER_DELIMITERS.items():
        if len(names) == 1 and other != delimiter and other in names[0]:
            suffix = {",": ".csv", "\t": ".tsv"}.get(other)
            cure = f"name it {path.stem}{suffix}" if suffix is not None else "save it with commas"
            raise ConfigError(
                f"The first line of {path} is {shown(names[0])}, one name with {plural}; if they separate its columns, "
                f"{cure}. If it is a prompt, write a line prompt above it."
            )
    return _Record(record.line, names)


def _require_fields(record: _Record, header: _Record, path: Path, delimiter: str) -> None:
    found, expected = len(record.fields), len(header.fields)
    if found != expected:
        named = shown(", ".join(header.fields), 60, quoted=False)
        cure = (
            f"put a text that holds {_OTHER_DELIMITERS[delimiter]} in double quotes"
            if found > expected
            else "give every column a value"
        )
        raise ConfigError(
            f"Line {record.line} of {path} has {found} field{'s' if found > 1 else ''} and its first line {expected} "
            f"({named}): {shown(record.fields, 100)}; {cure}."
        )
