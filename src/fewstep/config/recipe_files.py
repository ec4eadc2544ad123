"""The recipes that have a name: those that ship with fewstep, and those of installed packages. Imports no torch."""

import difflib
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from fewstep.errors import ConfigError, shown
from fewstep.plugins import RECIPES, installed, package_of, require_one_owner


@dataclass(frozen=True)
class _RecipeFile:
    """Where a named recipe is.

    Attributes:
        package: Whose it is; None for fewstep's own.
    """

    file: Traversable
    package: str | None = None

    @property
    def name(self) -> str:
        return self.file.name.removesuffix(".yaml")

    @property
    def source(self) -> str:
        """As messages name it."""
        return f"recipe {self.name}" + ("" if self.package is None else f" of the package {self.package}")

    @property
    def folder(self) -> Path:
        """What its paths are relative to."""
        return self.file.parent if isinstance(self.file, Path) and self.package is not None else Path()


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes, in alphabetical order."""
    return tuple(sorted({recipe.name for recipe in _own() + package_recipes()[0]}))


def package_recipes() -> tuple[list[_RecipeFile], list[str]]:
    """The recipes of installed packages, and one sentence for each package that has none where it says."""
    found: list[_RecipeFile] = []
    broken = []
    for entry in installed(RECIPES):
        folder = _folder(entry)
        own = [] if folder is None else _inside(folder, package_of(entry))
        found += own
        if not own:
            broken.append(
                f"The package {package_of(entry)} registers {entry.value} as a folder of recipes, but there is no "
                "such folder with YAML files in it; repair or uninstall that package."
            )
    return found, broken


def named_recipe(name: str) -> _RecipeFile:
    """The recipe of a name.

    Raises:
        ConfigError: There is none; the message lists the nearest ones. Or more than one package has it.
    """
    recipes, broken = package_recipes()
    found = [recipe for recipe in _own() + recipes if recipe.name == name]
    require_one_owner("recipe", name, [recipe.package or "fewstep" for recipe in found])
    if not found:
        names = recipe_names()
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
        told = f"There is no recipe {shown(name)}. {hint}The recipes are {', '.join(names)}; "
        raise ConfigError(
            " ".join([f"{told}a recipe file of your own is named by its path, which ends in .yaml.", *broken])
        )
    return found[0]


def recipe_source(name: str) -> str:
    """The YAML text of a named recipe.

    Raises:
        ConfigError: There is no recipe of this name, more than one package has it, or its file cannot be read.
    """
    recipe = named_recipe(name)
    try:
        return recipe.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {recipe.source} cannot be read: {error}. Repair or uninstall that package.") from error


def recipe_summary(name: str) -> str:
    """The first comment line of a named recipe: what it is, in one sentence; and whose it is."""
    first = next(iter(recipe_source(name).splitlines()), "")
    said = first.removeprefix("#").strip().removeprefix(f"{name}:").strip()
    package = named_recipe(name).package
    return said if package is None else f"{said} (of the package {package})"


def _own() -> list[_RecipeFile]:
    return _inside(files("fewstep") / "recipes", None)


def _folder(entry: EntryPoint) -> Path | None:
    """The folder that ``package.folder`` means; found without importing the package, which may be slow or broken."""
    top, *below = entry.value.replace(":", ".").split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    places = (Path(place, *below) for place in (spec and spec.submodule_search_locations) or ())
    return next((place for place in places if place.is_dir()), None)


def _inside(folder: Traversable, package: str | None) -> list[_RecipeFile]:
    return [_RecipeFile(entry, package) for entry in folder.iterdir() if entry.name.endswith(".yaml")]
