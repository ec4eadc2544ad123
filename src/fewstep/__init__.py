"""Distil flow-matching text-to-image models into students of four steps.

The public names are few, and each is imported when it is first used: ``import fewstep`` loads no torch.

    import fewstep

    recipe = fewstep.load_recipe("digits", ["budget.student_updates=100"])
    run = fewstep.train(recipe, root="runs")
    fewstep.export(run.path, "out/student")
    images = fewstep.sample("out/student", ["a red handwritten three"], steps=4, seed=7)
    scores = fewstep.evaluate("out/student", output="runs/evaluation")
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.config.recipe import load_recipe
    from fewstep.evaluation.session import evaluate
    from fewstep.export.export import export
    from fewstep.sampling.drawing import sample
    from fewstep.training.run import train

__version__ = "0.1.0"

__all__ = ["__version__", "evaluate", "export", "load_recipe", "sample", "train"]

_WHERE = {
    "evaluate": "fewstep.evaluation.session",
    "export": "fewstep.export.export",
    "load_recipe": "fewstep.config.recipe",
    "sample": "fewstep.sampling.drawing",
    "train": "fewstep.training.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'fewstep' has no attribute '{name}'; its public names are {', '.join(__all__)}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``fewstep.export`` the function, whenever the subpackage of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        # the import system binds every subpackage as an attribute of its parent
        if name not in _WHERE or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
