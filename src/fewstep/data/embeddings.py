"""Prompt embeddings on disk: computed once per set of prompts and text encoders, then memory-mapped.

    FOLDER/KEY/prompts-NUMBER-HASH.safetensors ... null.safetensors, places.safetensors, index.json

The key is a hash of what the embeddings depend on, so another set of prompts or another encoder is another cache. The
folder appears under its name only when it is complete. Equal embeddings are stored once, without padding.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.backbones.protocol import Conditioning, ModelAdapter
from fewstep.data import rows as rowwise
from fewstep.data.building import INDEX, NULL, PLACES, Alone, Build, Processes, Progress
from fewstep.data.encoders import encoder_identity
from fewstep.data.shards import Shard, damaged, open_shard, read_tensors
from fewstep.data.sizes import SizeEstimate
from fewstep.errors import CheckpointError, ConfigError

OPEN_SHARDS = 512
"""How many files are mapped at a time."""
FORMAT = 2


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
        return Conditioning(rowwise.join([self._row(index) for index in indices], self.shapes))

    @cached_property
    def null(self) -> Conditioning:
        """The unconditional branch: one row, on the CPU."""
        return Conditioning(read_tensors(self.folder / NULL))

    @property
    def num_bytes(self) -> int:
        """Of all files of rows."""
        return sum((self.folder / name).stat().st_size for name in self.shards)

    def _row(self, index: int) -> rowwise.Row:
        if not 0 <= index < len(self):
            raise IndexError(f"prompt {index} of {len(self)}")
        shard, row = (int(value) for value in self.places[index].numpy())
        return self._shard(shard).row(row)

    def _shard(self, number: int) -> Shard:
        found = self._opened.pop(number, None) or open_shard(self.folder / self.shards[number])
        self._opened[number] = found  # the last is the one used last
        if len(self._opened) > OPEN_SHARDS:
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
    return _open(published)


def cache_key(adapter: ModelAdapter, prompts: Sequence[str], *, dtype: torch.dtype) -> str:
    """Name what the embeddings depend on, and nothing else: 32 hexadecimal digits."""
    facts = {"format": FORMAT, "encoders": encoder_identity(adapter), "dtype": str(dtype)}
    content = hashlib.blake2b(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode(), digest_size=16)
    for prompt in prompts:
        encoded = prompt.encode(errors="surrogatepass")
        content.update(f"\n{len(encoded)} ".encode() + encoded)
    return content.hexdigest()


def _open(folder: Path) -> EmbeddingCache:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sizes, shards = dict(index["bytes"]), list(index["shards"])
        shapes = {name: tuple(shape) for name, shape in index["shapes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder / INDEX, "it cannot be read") from error
    for name, expected in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            raise damaged(path, "it is missing" if found is None else f"it has {found} bytes instead of {expected}")
    return EmbeddingCache(folder, shards, shapes, read_tensors(folder / PLACES)["places"])


def _release(device: torch.device | str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
