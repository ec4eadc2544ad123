"""Real pictures to compare with: a folder, stored features or statistics, or the demo's own."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.embedded.tasks import TASKS
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import UnreadableError, user_cache, whole_file
from fewstep.scores.networks.extractors import Extractor
from fewstep.scores.pictures import MAX_FILE_BYTES, SUFFIXES, pictures_in, read_picture
from fewstep.seals import BrokenSealError, seal
from fewstep.tensors import all_tensors

_FILE_SUFFIXES = (".safetensors", ".npz")
MAX_BYTES = 2**33
"""Of a reference file: a million rows of 2,048 numbers."""


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a reference's features: all that FID needs, and all that some references publish."""

    mean: Float[Tensor, "d"]
    covariance: Float[Tensor, "d d"]


@dataclass(frozen=True)
class Reference:
    """A reference's features.

    Attributes:
        features: One row per picture.
        strata: The prompt of each picture, where the set holds each prompt equally often; None otherwise.
    """

    features: Float[Tensor, "n d"]
    strata: Int[Tensor, "n"] | None = None


@dataclass(frozen=True)
class ReferenceSource:
    """Where a metric's reference is.

    Attributes:
        metric: The metric's name, for messages.
        path: Folder of pictures or file; None for the features that ship with an embedded task.
        extractor: Name of what reads pictures.
    """

    metric: str
    path: Path | None
    extractor: str = "inception"

    def check(self) -> None:
        """Find out, without reading a picture, whether the reference is there.

        Raises:
            ConfigError: There is no such folder or file, it is of another kind, or holds too few pictures.
        """
        if self.path is None:
            return
        if self.path.is_dir():
            if len(self.pictures()) < 2:
                raise ConfigError(
                    f"{self.metric}.reference is {self.path}, which holds {len(self.pictures())} pictures "
                    f"({', '.join(SUFFIXES)}); give a folder of real pictures."
                )
        elif not self.path.is_file():
            raise ConfigError(f"{self.metric}.reference is {self.path}, which does not exist. {_remedy(self.metric)}")
        elif self.path.suffix not in _FILE_SUFFIXES:
            raise ConfigError(
                f"{self.metric}.reference is {self.path}; a reference file is one of {', '.join(_FILE_SUFFIXES)}, "
                f"with features, or with mean and covariance."
            )

    def pictures(self) -> list[Path]:
        """The pictures of the folder and its subfolders, by name."""
        assert self.path is not None
        return pictures_in(self.path)

    @cached_property
    def digest(self) -> str:
        """Hash of the reference's content; the same pictures under another path have the same one."""
        if self.path is None:
            return _hash_of([TASKS[self.extractor].check_reference()], max_bytes=MAX_BYTES)
        try:
            if self.path.is_dir():
                return _hash_of(self.pictures(), max_bytes=MAX_FILE_BYTES)
            return _hash_of([self.path], max_bytes=MAX_BYTES)
        except BrokenSealError as error:
            raise ConfigError(
                f"{self.metric}.reference is {self.path}, and {error.path} {error}. "
                "Change its permissions, or remove it."
            ) from error

    def read(self, extractor: Extractor) -> Reference | Statistics:
        """The reference's features.

        Args:
            extractor: What reads its pictures; loaded only when there are any to read.

        Raises:
            ConfigError: A picture cannot be read, or the file holds something else.
        """
        if self.path is None:
            task = TASKS[self.extractor]
            features, prompts = task.load_reference(), task.prompts(task.name)
            return Reference(features, torch.arange(len(features)) % len(prompts))
        if self.path.is_dir():
            with extractor.in_memory():
                return Reference(_features_of(self.pictures(), extractor, metric=self.metric))
        return _from_table(_read_table(self.path), self.path)


def open_reference(metric: str, path: str | None, *, extractor: str) -> ReferenceSource:
    """Where a metric's reference is; reads nothing.

    Raises:
        ConfigError: No reference is given and the extractor has none of its own.
    """
    if path is None and extractor not in TASKS:
        raise ConfigError(f"{metric} compares with real pictures and has none. {_remedy(metric)}")
    return ReferenceSource(metric, Path(path).expanduser() if path else None, extractor)


def cached_reference(source: ReferenceSource, extractor: Extractor) -> Reference | Statistics:
    """The reference, its features taken from the cache where an earlier evaluation has left them.

    Args:
        source: Where the reference is.
        extractor: What reads its pictures; need not be loaded.

    Raises:
        ConfigError: A picture cannot be read, the file holds something else, or the cache cannot be written.
    """
    if source.path is None or not source.path.is_dir():
        return source.read(extractor)
    key = hashlib.sha256(f"{source.digest} {extractor.key}".encode()).hexdigest()
    path = user_cache("references") / f"{key[:32]}.safetensors"
    if path.is_file():
        # a file of the cache that was damaged is made again
        with suppress(UnreadableError, KeyError):
            return Reference(all_tensors(path)["features"])
    found = source.read(extractor)
    assert isinstance(found, Reference)
    _keep(found.features, path)
    return found


def _keep(features: Tensor, path: Path) -> None:
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, shared=True) as unfinished:
            save_file({"features": features.contiguous()}, unfinished)
    except OSError as error:
        raise ConfigError(
            f"The features of the reference pictures cannot be kept in {path.parent} ({error}). "
            f"Set XDG_CACHE_HOME to a folder that can be written."
        ) from error


def _remedy(metric: str) -> str:
    return (
        f"Give a folder of real pictures, or a .safetensors or .npz file of their features or statistics, with "
        f"--set {metric}.reference=PATH."
    )


def _hash_of(paths: list[Path], *, max_bytes: int) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(seal(path.resolve(), max_bytes=max_bytes).sha256))
    return digest.hexdigest()


def _features_of(paths: list[Path], extractor: Extractor, *, metric: str, batch: int = 16) -> Tensor:
    parts = []
    for start in range(0, len(paths), batch):
        prepared = [_prepared(path, extractor, metric=metric) for path in paths[start : start + batch]]
        parts.append(extractor.features(prepared))
    return torch.cat(parts)


def _prepared(path: Path, extractor: Extractor, *, metric: str) -> Tensor:
    try:
        return extractor.prepare(read_picture(path))
    except ValueError as error:
        raise ConfigError(
            f"The reference picture {path} of {metric} cannot be read: {error}. Remove it or get it again."
        ) from error


def _read_table(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return all_tensors(path)
        with np.load(path, allow_pickle=False) as stored:
            if (size := sum(part.file_size for part in stored.zip.infolist())) > MAX_BYTES:
                raise UnreadableError(f"unpacked it holds {size} bytes, more than any reference ({MAX_BYTES} at most)")
            return {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files if stored[name].ndim}
    except Exception as error:  # both libraries raise whatever a damaged file leads them to
        reason = shown(str(error) or type(error).__name__, 300, quoted=False)
        raise CheckpointError(f"The reference {path} cannot be read: {reason}. Make it again.") from error


def _from_table(table: Mapping[str, Tensor], path: Path) -> Reference | Statistics:
    """Features, or the statistics by our names or by those of pytorch-fid and clean-fid (mu, sigma)."""
    if "features" in table:
        return Reference(_checked(table, "features", path, shape="n d"))
    for mean, covariance in (("mean", "covariance"), ("mu", "sigma")):
        if mean in table and covariance in table:
            found = Statistics(
                _checked(table, mean, path, shape="d").double(), _checked(table, covariance, path, shape="d d").double()
            )
            if found.covariance.shape != (len(found.mean),) * 2:
                raise _misfit(table, covariance, path, f"{len(found.mean)} rows and columns, as {mean} has numbers")
            return found
    names = shown(", ".join(sorted(table)) or "nothing", 300, quoted=False)
    raise ConfigError(
        f"The reference {path} holds {names}; it must hold features, or mean and covariance (also called mu and sigma)."
    )


def _checked(table: Mapping[str, Tensor], name: str, path: Path, *, shape: str) -> Tensor:
    """A table of finite floating-point numbers with so many axes."""
    axes = shape.split()
    if table[name].ndim != len(axes) or not table[name].numel():
        raise _misfit(table, name, path, f"{len(axes)} axes ({shape})")
    if not table[name].dtype.is_floating_point or not torch.isfinite(table[name]).all():
        raise _misfit(table, name, path, "finite floating-point numbers")
    return table[name]


def _misfit(table: Mapping[str, Tensor], name: str, path: Path, wanted: str) -> ConfigError:
    kind = str(table[name].dtype).removeprefix("torch.")
    return ConfigError(
        f"In the reference {path}, {name} has shape {tuple(table[name].shape)} of {kind}; it must have {wanted}. "
        f"Make it again."
    )
