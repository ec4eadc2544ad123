"""Prompt embeddings on disk: computed once per set of prompts and text encoders, then memory-mapped.

    FOLDER/KEY/prompts-NUMBER-HASH.safetensors ... null.safetensors, places.safetensors, index.json

The key is a hash of what the embeddings depend on, so another set of prompts or another encoder is another cache. The
folder appears under its name only when it is complete. Equal embeddings are stored once, without padding. When it is
opened every file has to hold what the index and its own name say.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.source import MODEL_INDEX, find_file, locate
from fewstep.core.conditioning import Conditioning
from fewstep.data import stored_prompt
from fewstep.data.building import INDEX, NULL, PLACES, Alone, Build, Processes, Progress
from fewstep.data.shards import Shard, damaged, is_named_by, open_shard, read_tensors
from fewstep.data.sizes import SizeEstimate
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import UnreadableError, read_json
from fewstep.seals import BrokenSealError, Seals, verify
from fewstep.tensors import opened_tensors

_OPEN_SHARDS = 512
"""How many files are mapped at a time."""
_FORMAT = 3
# of the settings every backbone has, none changes what a prompt means; those of a family may (token counts, rewriting)
_COMMON_SETTINGS = frozenset(BackboneConfig.model_fields)
_ENCODERS = ("text_encoder", "tokenizer", "processor")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_MAX_FILE_BYTES = 2**28
"""Of a file of the encoders beside their weights."""


class _Index(BaseModel):
    """``index.json``: the files, which of them hold rows, and the shapes of one prompt's tensors, padding included."""

    files: Seals
    shards: list[str]
    shapes: dict[str, tuple[Annotated[int, Field(ge=0, le=2**24)], ...]]


class Embeddings(Protocol):
    """Prompt embeddings by index; :class:`EmbeddingCache` is one."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Conditioning: ...

    @property
    def null(self) -> Conditioning: ...


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings of a list of prompts, read from disk as they are asked for.

    Attributes:
        folder: Of this cache.
        shards: Names of its files of rows.
        shapes: Of one prompt's tensors by name, padding included.
        places: Shard and row of each prompt.
    """

    folder: Path
    shards: Sequence[str]
    shapes: dict[str, tuple[int, ...]]
    places: Tensor
    _opened: dict[int, Shard] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, indices: Sequence[int]) -> Conditioning:
        """Embeddings of the prompts at ``indices``, in that order, on the CPU."""
        return Conditioning(stored_prompt.join([self._row(index) for index in indices], self.shapes))

    @cached_property
    def null(self) -> Conditioning:
        """The unconditional branch: one row, on the CPU."""
        return Conditioning(read_tensors(self.folder / NULL))

    @property
    def num_bytes(self) -> int:
        """Of all files of rows."""
        return sum((self.folder / name).stat().st_size for name in self.shards)

    def _row(self, index: int) -> stored_prompt.StoredPrompt:
        if not 0 <= index < len(self):
            raise IndexError(f"prompt {index} of {len(self)}")
        shard, row = (int(value) for value in self.places[index].numpy())
        rows = self._shard(shard)
        if not 0 <= row < len(rows):
            raise damaged(self.folder / PLACES, f"it names row {row} of {self.shards[shard]}, which has {len(rows)}")
        return rows.row(row)

    def _shard(self, number: int) -> Shard:
        found = self._opened.pop(number, None) or open_shard(self.folder / self.shards[number])
        self._opened[number] = found  # the last is the one used last
        if len(self._opened) > _OPEN_SHARDS:
            del self._opened[next(iter(self._opened))]
        return found


def open_or_build(
    folder: Path,
    adapter: ModelAdapter,
    prompts: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    processes: Processes | None = None,
    on_estimate: Callable[[SizeEstimate], None] | None = None,
    on_progress: Progress | None = None,
) -> EmbeddingCache:
    """Open the cache of these prompts, or embed them first; the text encoders leave memory before this returns.

    What an earlier attempt finished is kept: the same call goes on.

    Args:
        folder: Where caches are kept, one folder below for each; all processes have to see it.
        adapter: Of the teacher whose text encoders are used.
        prompts: In the order of their indices; repeated ones are embedded once.
        device: Where the text encoders run.
        dtype: Of the text encoders and of the embeddings.
        processes: Who builds together; each has to call this with the same arguments.
        on_estimate: Told what the embeddings will take, before the first is written.
        on_progress: Called while prompts are embedded.

    Raises:
        CheckpointError: A file of an existing cache is damaged; the message says what to delete.
        ConfigError: The folder cannot be written, the disk is too small, or the text encoders cannot be loaded.
    """
    processes = processes or Alone()
    published = folder / cache_key(adapter, prompts, dtype=dtype)
    if not processes.from_main(published.is_dir):
        index = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        build = Build(published, adapter, tuple(index), device=device, dtype=dtype, processes=processes)
        try:
            build.run([index[prompt] for prompt in prompts], on_estimate=on_estimate, on_progress=on_progress)
        except (ConfigError, CheckpointError):
            if not published.is_dir():  # else another run was faster, and took the folder away with what it published
                raise
        finally:
            _release(device)
    return _open(published, len(prompts), processes)


def described_text(folder: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """What a finished cache says of its prompts without reading one.

    Args:
        folder: Of one cache, as ``fewstep embed`` names it.

    Returns:
        The shapes of a prompt's tensors, padding included; and the most tokens that a mask shows of any, the
        unconditional branch among them: all where one is hidden entirely, 0 where there is no mask.

    Raises:
        CheckpointError: It is no cache, or damaged.
    """
    index = _verified(folder)
    masks = [name for name in index.shapes if name.endswith(stored_prompt.MASK)]
    (null,) = stored_prompt.split(read_tensors(folder / NULL))
    lengths = {len(null[name]) for name in masks}
    for shard in (open_shard(folder / name) for name in index.shards):
        lengths.update(length for name in masks for length in shard.row_lengths(name))
    hidden = {index.shapes[name][0] for name in masks if 0 in lengths}
    return index.shapes, max(lengths | hidden, default=0)


def cache_key(adapter: ModelAdapter, prompts: Sequence[str], *, dtype: torch.dtype) -> str:
    """Name what the embeddings depend on, and nothing else: 32 hexadecimal digits."""
    facts = {"format": _FORMAT, "encoders": _encoder_identity(adapter), "dtype": str(dtype)}
    content = hashlib.blake2b(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode(), digest_size=16)
    for prompt in prompts:
        encoded = prompt.encode(errors="surrogatepass")
        content.update(f"\n{len(encoded)} ".encode() + encoded)
    return content.hexdigest()


def _open(folder: Path, num_prompts: int, processes: Processes) -> EmbeddingCache:
    index = processes.from_main(lambda: _verified(folder))
    tensors = read_tensors(folder / PLACES)
    places = tensors.get("places", torch.empty(0))
    if places.shape != (num_prompts, 2) or places.dtype != torch.int32:
        raise damaged(folder / PLACES, f"it does not say where {num_prompts} prompts are")
    if num_prompts and not 0 <= int(places[:, 0].min()) <= int(places[:, 0].max()) < len(index.shards):
        raise damaged(folder / PLACES, "it names files that are not there")
    cache = EmbeddingCache(folder, index.shards, index.shapes, places)
    # one call asks about prompts and the empty prompt together, so their tensors have one shape
    null = {name: tuple(value.shape[1:]) for name, value in cache.null.tensors.items()}
    if null != index.shapes or len(cache.null) != 1:
        raise damaged(folder / INDEX, f"its shapes are {shown(index.shapes, 200)}, those of {NULL} {shown(null, 200)}")
    return cache


def _verified(folder: Path) -> _Index:
    """The index of a cache whose files hold what it and their names say; hashed once, then known by their times."""
    try:
        index = read_json(folder / INDEX, _Index)
    except UnreadableError as error:
        raise damaged(folder / INDEX, f"it cannot be read: {error}") from error
    for name in (*index.shards, NULL, PLACES):
        if name not in index.files:
            raise damaged(folder / INDEX, f"it does not list {shown(name)}")
    for name in index.shards:
        if not is_named_by(name, index.files[name].sha256):
            raise damaged(folder / name, "its name is not the hash that the index has")
    try:
        verify(folder, index.files, remember=True)
    except BrokenSealError as error:
        raise damaged(error.path, f"it {error}") from error
    return index


def _release(device: torch.device | str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def _encoder_identity(adapter: ModelAdapter) -> dict[str, Any]:
    """The backbone, its own settings, and the content of the encoders' files or the commit they come from."""
    return {
        "kind": adapter.kind,
        "settings": adapter.config.model_dump(mode="json", exclude={*_COMMON_SETTINGS, *adapter.config.not_about_text}),
        "files": _content(adapter.config.origin, adapter.config.revision),
        **adapter.text_identity(),
    }


def _content(model: str, revision: str | None) -> str:
    source = locate(model)
    if Path(source).is_dir():
        return _hash_files(Path(source))
    index = find_file(source, MODEL_INDEX, revision=revision)
    if index is None:
        raise ConfigError(f"{model} has no {MODEL_INDEX}, so it is not a diffusers pipeline; name another model.")
    # the hub's cache keeps each commit in a folder of its name, so a moved branch is another identity
    return f"{model}@{index.parent.name}"


def _hash_files(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    files = (path for prefix in _ENCODERS for path in folder.glob(f"{prefix}*/**/*") if path.is_file())
    for path in sorted(files):
        if path.suffix == ".safetensors":
            _require_header(path)
        elif path.suffix not in _WEIGHTS and path.stat().st_size > _MAX_FILE_BYTES:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, more than any file of a tokenizer; get the model again."
            )
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}={content}\n".encode())
    return digest.hexdigest()


def _require_header(path: Path) -> None:
    """Refuse weights that are not what their header says before all of them are hashed, which takes minutes."""
    try:
        with opened_tensors(path):
            pass
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be used: {error}. Get the model again; it may be cut short.") from error
