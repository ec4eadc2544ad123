"""From a recipe's name and overrides to settings that can be run: every problem is told at once, nothing is loaded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fewstep.config.explain import explain, listed, unusable
from fewstep.config.layers import Layer, merge_layers, override_layer, recipe_layers
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """Settings with the name under which their runs are filed.

    Attributes:
        name: Of the named recipe, or of the file without its suffix.
        config: The settings, complete.
    """

    name: str
    config: RunConfig


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, its bases and the overrides, and check all of it.

    Args:
        name_or_path: The name of a recipe (see ``fewstep recipes``) or the path of a YAML file.
        overrides: Settings as ``student.lr=1e-4``; later ones win.

    Raises:
        ConfigError: Something is wrong; the message names every problem, its value and where it was stated.
    """
    text = str(name_or_path)
    layers = [*recipe_layers(text), override_layer(overrides)]
    return Recipe(Path(text).stem if text.endswith((".yaml", ".yml")) else text, build_config(layers))


def build_config(layers: Sequence[Layer]) -> RunConfig:
    """Validate the settings that the layers add up to.

    Raises:
        ConfigError: One line for each problem.
    """
    settings = merge_layers(layers)
    problems = unusable(settings, layers)
    if not problems:
        try:
            return validate(settings)
        except ValidationError as error:
            problems = explain(error, settings, layers)
    raise ConfigError(listed(problems))


def validate(settings: Mapping[str, Any]) -> RunConfig:
    """Turn plain data into settings: a number is a number, never a text that looks like one.

    Raises:
        ValidationError: Some of it is no setting.
    """
    # strict JSON, not strict Python: a list may be a tuple and a mapping a dataclass, but '3' is no integer
    return RunConfig.model_validate_json(json.dumps(settings), strict=True)
