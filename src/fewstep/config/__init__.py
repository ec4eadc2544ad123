"""What a run is asked to do: the settings, the recipes that state them, and what makes two runs the same.

Names are imported when first used, so that listing the recipes loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.config.identity import config_difference, config_hash
    from fewstep.config.recipe import Recipe, load_recipe
    from fewstep.config.recipe_files import recipe_names, recipe_source
    from fewstep.config.run_config import RunConfig

__all__ = [
    "Recipe",
    "RunConfig",
    "config_difference",
    "config_hash",
    "load_recipe",
    "recipe_names",
    "recipe_source",
]

_WHERE = {
    "Recipe": "recipe",
    "RunConfig": "run_config",
    "config_difference": "identity",
    "config_hash": "identity",
    "load_recipe": "recipe",
    "recipe_names": "recipe_files",
    "recipe_source": "recipe_files",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fewstep.config' has no attribute '{name}'")
    return getattr(import_module(f"fewstep.config.{_WHERE[name]}"), name)
