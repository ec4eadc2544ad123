"""Settings on top of settings: what a recipe's bases, the recipe and the command line each say.

A mapping is merged key by key, with two exceptions: ``null`` switches off whatever is below it, and a mapping that
changes its own kind (``kind``, ``law``, ``at`` or ``mode``) replaces the one below whole: its other keys belong to
that kind.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.config.recipe_files import named_recipe, recipe_names, recipe_source
from fewstep.config.yaml_text import MAX_CHARACTERS, parse_yaml, parse_yaml_mapping
from fewstep.errors import ConfigError, shown

DISCRIMINATORS = ("kind", "law", "at", "mode")
_COMMAND_LINE = "the command line"
_MAX_KEYS = 20
"""Names in one override; the deepest setting has 5."""
_MAX_BASES = 50


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        source: The place, as a message names it: ``recipe digits``, a file, or the command line.
        settings: Nested mappings of names.
    """

    source: str
    settings: Mapping[str, Any]

    def states(self, path: Sequence[str | int]) -> bool:
        """Whether this layer says something at ``path`` or below it."""
        value: Any = self.settings
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                return False
            value = value[key]
        return True


def recipe_layers(name_or_path: str) -> list[Layer]:
    """The layers of a recipe, lowest base first.

    Args:
        name_or_path: The name of a recipe, or the path of a YAML file.

    Raises:
        ConfigError: A recipe or a base is not there, is no recipe, or builds on itself.
    """
    layers: list[Layer] = []
    seen: list[str] = []
    reference: str | None = name_or_path
    beside = Path()
    while reference is not None:
        layer, reference, beside = _read(reference, beside, below=layers[-1].source if layers else None)
        if layer.source in seen:
            raise ConfigError(f"The bases go in a circle: {' -> '.join([*seen, layer.source])}. Remove one 'base:'.")
        seen.append(layer.source)
        if len(seen) > _MAX_BASES:
            raise ConfigError(f"{seen[0]} stands on more than {_MAX_BASES} bases; write some of them as one recipe.")
        layers.append(layer)
    return layers[::-1]


def recipe_text(name_or_path: str) -> str:
    """A recipe as it is written, comments included.

    Raises:
        ConfigError: There is no such recipe.
    """
    if _is_path(name_or_path):
        return _read_file(_absolute(name_or_path, Path(), "the recipe"), below=None)
    return recipe_source(name_or_path)


def override_layer(overrides: Iterable[str]) -> Layer:
    """The settings written as ``a.b=c`` on the command line; the value is YAML, the last one wins.

    Raises:
        ConfigError: One of them is not of this form.
    """
    settings: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"{shown(override)} on the command line is no override; write it as student.lr=1e-4.")
        if len(keys) > _MAX_KEYS:
            raise ConfigError(
                f"{shown(override)} on the command line names {len(keys)} keys, one below the other; no setting lies "
                f"deeper than {_MAX_KEYS}."
            )
        _put(settings, keys, parse_yaml(text, source=f"The value of {shown(override)} on the command line"))
    return Layer(_COMMAND_LINE, _anchor_paths(settings, Path()))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _changes_kind(old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def merge_layers(layers: Iterable[Layer]) -> dict[str, Any]:
    """Lay every layer over the ones before it."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.settings)
    return merged


def _anchor_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in one layer absolute: they are relative to ``folder``, where the layer was written.

    A prompt file is always a path. A model or a LoRA is one when it begins with ``.``, ``/`` or ``~`` or is a file of
    weights: anything else may be a repository id.
    """
    anchored = dict(settings)
    for keys in _PATHS:
        anchored = _anchored(anchored, keys, folder, always=keys == _PROMPT_FILE)
    return anchored


_PROMPT_FILE = ("prompts", "path")
_PATHS = (
    _PROMPT_FILE,
    ("backbone", "model"),
    ("backbone", "components"),
    ("backbone", "lora", "*", "path"),
    ("student", "init", "lora"),
    ("student", "init", "model"),
)
_WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def _anchored(value: Any, keys: Sequence[str], folder: Path, *, always: bool) -> Any:
    """``value`` with the text at ``keys`` as an absolute path, if it is there and is one; ``*`` is every item."""
    if not keys:
        is_path = isinstance(value, str) and value and (always or value[0] in "./~" or value.endswith(_WEIGHT_FILES))
        return str(_absolute(value, folder, "a path of the settings")) if is_path else value
    key, *below = keys
    if key == "*" and isinstance(value, list):
        return [_anchored(item, below, folder, always=always) for item in value]
    if isinstance(value, Mapping) and key in value:
        return {**value, key: _anchored(value[key], below, folder, always=always)}
    return value


def _read(reference: str, beside: Path, *, below: str | None) -> tuple[Layer, str | None, Path]:
    """One recipe or base: its layer, its own base, and the folder that the base is relative to."""
    if _is_path(reference):
        path = _absolute(reference, beside, "the recipe" if below is None else f"the base of {below}")
        text, source, folder = _read_file(path, below=below), str(path), path.parent
    else:
        recipe = named_recipe(reference)
        text, source, folder = recipe_source(reference), recipe.source, recipe.folder
    settings = parse_yaml_mapping(text, source=source)
    layer = Layer(source, _anchor_paths({k: v for k, v in settings.items() if k != "base"}, folder))
    base = settings.get("base")
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"base is {shown(base)} in {source}; it names a recipe or a file beside this one.")
    return layer, base, folder


def _is_path(reference: str) -> bool:
    if reference in recipe_names():
        return False
    return reference.endswith((".yaml", ".yml")) or "/" in reference or "\\" in reference


def _absolute(text: str, folder: Path, what: str) -> Path:
    """A path that is relative to ``folder``; ``~`` is the home folder."""
    try:
        return (folder / Path(text).expanduser()).resolve()
    # zero bytes; a home folder that is not there; links in a circle
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"{what} is {shown(text)}, which is no path: {error}.") from error


def _read_file(path: Path, *, below: str | None) -> str:
    asked = f", which is the base of {below}," if below else ""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")
        size = path.stat().st_size
        if size > 4 * MAX_CHARACTERS:
            raise OSError(f"it has {size} bytes; recipes have {MAX_CHARACTERS} characters at most")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no recipe file {path}{asked.rstrip(',')}; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe file {path}{asked} cannot be read: {error}.") from error


def _put(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        below = settings.get(key)
        settings[key] = below if isinstance(below, dict) else {}
        settings = settings[key]
    settings[keys[-1]] = value


def _changes_kind(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return any(key in above and key in below and above[key] != below[key] for key in DISCRIMINATORS)
