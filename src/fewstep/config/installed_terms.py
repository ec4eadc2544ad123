"""The ``terms`` section of a recipe with the terms of installed packages in it, each with its own settings."""

import inspect
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import create_model

from fewstep.errors import ConfigError, shown
from fewstep.methods.terms import Term, Terms
from fewstep.plugins import TERMS, find, installed, load, package_of


def term_names() -> tuple[str, ...]:
    """Every term that a recipe may switch on; no package is imported."""
    return tuple(dict.fromkeys([*Terms.model_fields, *(entry.name for entry in installed(TERMS))]))


def read_terms(stated: Mapping[str, Any]) -> Terms:
    """The terms that a recipe states.

    Raises:
        ValidationError: Some of it is no setting.
        ConfigError: A package's term cannot be used.
    """
    # a term that is off is no field of a class that was made without it
    packages = set(term_names()) - Terms.model_fields.keys()
    on = {name: value for name, value in stated.items() if value is not None or name not in packages}
    return terms_class(on).model_validate_json(json.dumps(on), strict=True)


def terms_class(stated: Mapping[str, Any]) -> type[Terms]:
    """The settings that ``terms`` has when these are stated: packages are imported for the terms of theirs alone.

    Raises:
        ConfigError: A package's term cannot be used, or packages clash over its name.
    """
    found = {name: find(TERMS, name, built_in=Terms.model_fields) for name in sorted(stated)}
    added = tuple((name, _loaded(entry)) for name, entry in found.items() if entry is not None)
    return _with(added) if added else Terms


def _loaded(entry: EntryPoint) -> type[Term]:
    name = entry.name
    if not name.isidentifier() or name.startswith(("_", "model_")) or hasattr(Terms, name):
        raise ConfigError(
            f"The package {package_of(entry)} registers a loss term as {shown(name)}, which cannot be the name of a "
            "setting; it has to be a Python name that the terms do not use. Repair or uninstall that package."
        )
    term: type[Term] = load(entry, _is_term, "a Term that says its direction")
    return term


def _is_term(loaded: Any) -> bool:
    return isinstance(loaded, type) and issubclass(loaded, Term) and not inspect.isabstract(loaded)


@cache
def _with(added: tuple[tuple[str, type[Term]], ...]) -> type[Terms]:
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in added}
    return create_model("Terms", __base__=Terms, **fields)
