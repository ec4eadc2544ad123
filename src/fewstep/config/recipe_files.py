"""The recipes that ship with the package: their names and their text. Imports no torch."""

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable

from fewstep.errors import ConfigError, shown


def recipe_names() -> tuple[str, ...]:
    """Names of the built-in recipes, in alphabetical order."""
    found = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


def recipe_source(name: str) -> str:
    """The YAML text of a built-in recipe.

    Raises:
        ConfigError: There is no recipe of this name; the message lists the nearest ones.
    """
    names = recipe_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
        raise ConfigError(
            f"There is no recipe {shown(name)}. {hint}The built-in recipes are {', '.join(names)}; "
            "a recipe file of your own is named by its path, which ends in .yaml."
        )
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def recipe_summary(name: str) -> str:
    """The first comment line of a built-in recipe: what it is, in one sentence."""
    first = recipe_source(name).splitlines()[0]
    return first.removeprefix("#").strip().removeprefix(f"{name}:").strip()


def _folder() -> Traversable:
    return files("fewstep") / "recipes"
