"""What lets the originals be imported beside today's torch and transformers, which most of them are older than."""

import shutil
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_UNUSED = ("clint", "clint.textui", "clip")
"""What hpsv2 and image-reward import and the code that is run here does not call."""


def original(module: str) -> Any:
    """A module of an original."""
    return import_module(module)


def prepare() -> None:
    """Import torchvision without its compiled operators, and fill what else is absent with empty modules."""
    kept = torch.library.register_fake
    vars(torch.library)["register_fake"] = lambda *told, **named: lambda function: function
    try:
        import_module("torchvision")
    finally:
        vars(torch.library)["register_fake"] = kept
    for name in _UNUSED:
        sys.modules.setdefault(name, ModuleType(name))
    vars(sys.modules["clint.textui"])["progress"] = None
    # its __init__ wants what only its training uses
    package = ModuleType("ImageReward")
    package.__path__ = list(getattr(find_spec("ImageReward"), "submodule_search_locations", None) or ())
    sys.modules["ImageReward"] = package
    # the wheel of hpsv2 lacks the words of CLIP, which open_clip has
    words = "bpe_simple_vocab_16e6.txt.gz"
    target = Path(str(import_module("hpsv2.utils").__file__)).parent / "src" / "open_clip" / words
    if not target.is_file():
        shutil.copyfile(Path(str(import_module("open_clip").__file__)).parent / words, target)


def told(package: str) -> str:
    """A package with its version."""
    return f"{package} {version(package)}"
