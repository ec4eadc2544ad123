"""Columns of a parquet file, a batch of rows at a time; pictures beside the prompts are not read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewstep.errors import ConfigError, shown
from fewstep.prompts.lines import decoded, opened

_ROWS_PER_BATCH = 1024


def column_names(path: Path) -> tuple[str, ...]:
    """Names of the columns that hold no bytes of pictures.

    Raises:
        ConfigError: The package pyarrow is missing, or the file cannot be read.
    """
    with _parquet(path) as file:
        names = [field.name for field in file.schema_arrow if not _holds_bytes(field.type)]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path} has several columns of one name ({', '.join(names)}); give each a name of its own.")
    return tuple(names)


def rows(path: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows with these columns."""
    number = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=list(names)):
            columns = [_values(column, f"of {path}", number) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, values, strict=True))
            number += len(batch)


def _values(column: Any, path: str, before: int) -> list[Any]:
    """A column as plain values; texts as bytes first, because nobody has checked that they are UTF-8."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            values: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            raise
        except (ValueError, OverflowError, LookupError, ImportError) as error:  # a date that Python does not have
            kind = shown(str(column.type), quoted=False)
            raise ConfigError(f"A column {path} holds values of the type {kind}; a prompt must be a text.") from error
        return values
    stored = column.cast(pa.large_binary()).to_pylist()
    return [
        None if raw is None else decoded(raw, f"Row {before + place} {path}") for place, raw in enumerate(stored, 1)
    ]


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(
            f"The prompt file {path} is read with the package pyarrow; install it with: pip install 'fewstep[parquet]'."
        ) from error
    with opened(path) as file:
        try:
            with pq.ParquetFile(file, pre_buffer=False) as found:
                yield found
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            reason = shown(" ".join(str(error).split()), 200, quoted=False)
            raise ConfigError(f"The prompt file {path} is no sound parquet file ({reason}); get it again.") from error
