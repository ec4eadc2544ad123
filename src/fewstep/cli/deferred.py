"""Parts of SciPy that the libraries of models import at once and hardly ever use: executed when they are used.

Every scheduler of diffusers imports ``scipy.stats``, for the sigmas of a beta law; every model of transformers imports
``scipy.optimize.linear_sum_assignment``, for a loss of detectors. In the process of a command such a module is found
as ever and enters ``sys.modules``, but its code waits until somebody asks it for a name, by the ``__getattr__`` that a
module may have: then it is executed in that same module, so classes, names and pickles are those of any other import.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

SWITCH = "FEWSTEP_DEFER"
"""An environment variable; 0 imports everything at once, as any program does."""
DEFERRED: Mapping[str, Sequence[str]] = {
    "scipy.integrate": (),
    "scipy.optimize": ("linear_sum_assignment",),
    "scipy.stats": (),
}
"""Modules, each with the functions that others import from it by name: until it is executed, these stand for them."""


def defer_modules(deferred: Mapping[str, Sequence[str]] = DEFERRED) -> None:
    """Let modules wait in this process, those that are not there yet; nothing where :data:`SWITCH` is 0."""
    if os.environ.get(SWITCH) != "0":
        sys.meta_path.insert(0, _Finder({name: held for name, held in deferred.items() if name not in sys.modules}))


class _Finder(MetaPathFinder):
    """Finds modules that wait, and executes them when one of their own is imported."""

    def __init__(self, deferred: Mapping[str, Sequence[str]]) -> None:
        self._functions = dict(deferred)
        self._waiting: dict[str, _Waiting] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        above = self._waiting.get(fullname.rpartition(".")[0])
        if above is not None and not above.begun:
            above.execute()
            made = sys.modules.get(fullname)
            return None if made is None else _as_it_is(made)
        if fullname not in self._functions or fullname in self._waiting:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Waiting(spec.loader, self._functions[fullname], self._waiting)
        return spec


class _Waiting(Loader):
    """Loads a module but for its code, which is executed by whoever first asks for a name."""

    def __init__(self, loader: Loader, functions: Sequence[str], waiting: dict[str, "_Waiting"]) -> None:
        self._loader, self._functions, self._all = loader, functions, waiting
        self._lock = RLock()
        self.begun = False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._module, self._all[module.__name__] = module, self
        vars(module).update({name: self._standing_for(name) for name in self._functions})
        vars(module)["__getattr__"] = self._look_up

    def execute(self) -> None:
        """Execute the module's code, once; other threads wait for it."""
        with self._lock:
            if self.begun:
                return
            self.begun = True
            try:
                self._loader.exec_module(self._module)
            except BaseException:
                self.begun = False
                raise
            if vars(self._module).get("__getattr__") == self._look_up:  # it has none of its own
                del vars(self._module)["__getattr__"]

    def _look_up(self, name: str) -> Any:
        self.execute()
        if vars(self._module).get("__getattr__") == self._look_up:  # while it is executed, in a circle of imports
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r} yet")
        return getattr(self._module, name)

    def _standing_for(self, name: str) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            self.execute()
            return getattr(self._module, name)(*args, **kwargs)

        function.__name__ = function.__qualname__ = name
        function.__module__ = self._module.__name__
        return function


class _AsItIs(Loader):
    """Gives the import system a module that was imported while it was being looked for."""

    def __init__(self, module: ModuleType, loader: Loader | None) -> None:
        self._module, self._loader = module, loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = self._loader


def _as_it_is(module: ModuleType) -> ModuleSpec | None:
    spec = module.__spec__
    if spec is not None:
        spec.loader = _AsItIs(module, spec.loader)
    return spec
