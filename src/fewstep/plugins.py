"""What installed packages add, by entry point; a package that cannot be used is told where it is needed, not before.

    fewstep.backbones   KIND = module:Class        a ModelAdapter whose kind is KIND
    fewstep.terms       NAME = module:Class        a Term, which recipes switch on as terms.NAME
    fewstep.recipes     any name = package.folder  YAML files, each a recipe named by its file

Looking around imports nothing of these packages.
"""

import sys
from collections.abc import Callable, Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fewstep.errors import ConfigError, shown

BACKBONES, TERMS, RECIPES = "fewstep.backbones", "fewstep.terms", "fewstep.recipes"
WHAT = {BACKBONES: "backbone", TERMS: "loss term", RECIPES: "recipe"}


def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of one group, by name."""
    return _installed(group, tuple(sys.path))


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda entry: entry.name))


def package_of(entry: EntryPoint, *, version: bool = False) -> str:
    """The name of the package that an entry point belongs to, with its version if asked for."""
    if entry.dist is None:
        return entry.value
    return f"{entry.dist.name} {entry.dist.version}" if version else entry.dist.name


def find(group: str, name: str, *, built_in: Collection[str]) -> EntryPoint | None:
    """The entry point of a name; None where no package has it, as for what is built in.

    Raises:
        ConfigError: More than one has it.
    """
    found = [entry for entry in installed(group) if entry.name == name]
    require_one_owner(WHAT[group], name, [*(["fewstep"] if name in built_in else []), *map(package_of, found)])
    return found[0] if found else None


def require_one_owner(what: str, name: str, owners: Collection[str]) -> None:
    """Raise ConfigError when packages clash over a name."""
    if len(owners) > 1:
        raise ConfigError(
            f"The {what} {shown(name, quoted=False)} is of more than one installed package: {', '.join(owners)}. "
            "Uninstall all of them but one."
        )


def load(entry: EntryPoint, fits: Callable[[Any], bool], demand: str) -> Any:
    """Import what an entry point names.

    Args:
        fits: Whether it is what the group asks for.
        demand: What the group asks for, behind "that is not".

    Raises:
        ConfigError: It cannot be imported, or does not fit.
    """
    what, owner = WHAT[entry.group], package_of(entry)
    try:
        loaded = entry.load()
    except Exception as error:  # whatever a foreign module raises while it is imported
        said = shown(" ".join(str(error).split()), 300, quoted=False)
        raise ConfigError(
            f"The {what} {entry.name} of the package {owner} cannot be imported ({type(error).__name__}: {said}). "
            "Repair or uninstall that package."
        ) from error
    if not fits(loaded):
        raise ConfigError(
            f"The package {owner} registers {entry.value} as the {what} {entry.name}, "
            f"but that is not {demand}. Repair or uninstall that package."
        )
    return loaded
