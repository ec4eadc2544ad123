"""What every option and every complaint about one has in common: numbers are finite, complaints are short."""

import math
from typing import Any

import typer
from typer.core import TyperGroup

from fewstep.errors import shown

_MAX_COMPLAINT = 500


class Commands(TyperGroup):
    """A group whose complaints about the command line are cut and without control characters, as all messages are."""

    def make_context(self, *args: Any, **others: Any) -> Any:
        try:
            return super().make_context(*args, **others)
        except Exception as error:
            _shorten(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            _shorten(error)
            raise


def finite(value: float | None) -> float | None:
    """Refuse what is no number: comparisons let it through every bound."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number.")
    return value


def _shorten(error: Exception) -> None:
    message = getattr(error, "message", None)
    # what a command line cannot be read for; typer prints it by itself, in a frame
    if hasattr(error, "format_message") and isinstance(message, str):
        error.message = shown(message, _MAX_COMPLAINT, quoted=False)  # type: ignore[attr-defined]
