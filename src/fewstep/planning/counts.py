"""What a plan reads of networks, as plain data: kept on disk, so that the next plan of the same networks traces none.

A file answers only for what it was made by: the sources of fewstep, the versions of the libraries that build and run
the networks. Anything else in its place, damaged or of another version, is counted anew and written over.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fewstep.backbones.registry import adapter_class
from fewstep.config.run_config import RunConfig
from fewstep.files import UnreadableError, read_json, user_cache, whole_file
from fewstep.planning.activations import Activations
from fewstep.planning.sizes import WeightTable

_LIBRARIES = ("diffusers", "jaxtyping", "numpy", "peft", "torch", "transformers")


@dataclass
class Counts:
    """Of one checkpoint at one size, in one precision, with the weights that two roles train; None is not counted yet.

    Attributes:
        components: The checkpoint's configurations, completed with the defaults of the installed classes.
        flops: Of a forward of one sample.
        decoder: Parameters of the VAE.
        tables: The weights of the teacher's network, ``base``, and of one that is trained whole, ``whole``.
        activations: What calls need, by what is trained and what is recomputed.
    """

    components: dict[str, dict[str, Any]] | None = None
    flops: float | None = None
    decoder: int | None = None
    tables: dict[str, WeightTable] = field(default_factory=dict)
    activations: dict[str, Activations] = field(default_factory=dict)

    @property
    def extent(self) -> tuple[int, ...]:
        """How much is there; it only grows."""
        single = (self.components, self.flops, self.decoder)
        return (*(value is not None for value in single), len(self.tables), len(self.activations))


@dataclass(frozen=True)
class _Kept:
    """The content of a file.

    Attributes:
        made_by: What decides figures beside the recipe.
        digest: Of ``counts`` as they were written.
    """

    made_by: str
    digest: str
    counts: Counts


def counts_folder() -> Path:
    """Where commands keep them."""
    return user_cache("plans")


@dataclass(frozen=True)
class CountsFile:
    """One file of the cache.

    Attributes:
        path: Named by the recipe's checkpoint, size, precision and trained weights.
        made_by: What decides figures beside them.
    """

    path: Path
    made_by: str

    @classmethod
    def of(cls, folder: Path, config: RunConfig, components: Mapping[str, Any]) -> "CountsFile | None":
        """The file of a recipe's networks; None where versions do not tell what would count them.

        Args:
            folder: Of all files.
            config: The recipe.
            components: The checkpoint's configurations, as far as they are known before the libraries are imported.
        """
        versions = {name: _version(name) for name in _LIBRARIES}
        if any("dev" in found for found in versions.values()) or not _is_ours(config.backbone.kind):
            return None
        planned = {
            "backbone": config.backbone.model_dump(mode="json"),
            "components": components,
            "compute": config.precision.compute,
            "student": config.student.weights.model_dump(mode="json"),
            "fake_score": config.fake_score.weights.model_dump(mode="json"),
        }
        made_by = {
            "versions": versions,
            "python": sys.version,
            "sources": _sources(),
            # such as the kernel of attention, which is another operation
            "settings": {name: value for name, value in os.environ.items() if name.startswith("DIFFUSERS_")},
        }
        return cls(folder / f"{_digest(planned)[:32]}.json", _digest(made_by))

    def read(self) -> Counts:
        """What is kept; nothing where there is no file, or one that was damaged or made by other versions."""
        try:
            kept = read_json(self.path, _Kept)
        except UnreadableError:
            return Counts()
        if kept.made_by != self.made_by or kept.digest != _digest(asdict(kept.counts)):
            return Counts()
        return kept.counts

    def write(self, counts: Counts) -> None:
        """Keep counts; where the disk refuses, the next plan counts again."""
        plain = asdict(counts)
        kept = {"made_by": self.made_by, "digest": _digest(plain), "counts": plain}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path, shared=True) as unfinished:
                unfinished.write_text(json.dumps(kept), encoding="utf-8")
        except OSError:
            return


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _is_ours(kind: str) -> bool:
    """Whether a backbone is of this package, whose sources are known."""
    return adapter_class(kind).__module__.partition(".")[0] == __name__.partition(".")[0]


@cache
def _sources() -> str:
    """One digest of all sources of this package: a change of any of them may change a count."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
