"""Prompt embeddings on disk: computed once per set of prompts and text encoders, then memory-mapped.

    prompts --text encoders--> FOLDER/KEY/prompts-00000.safetensors ... null.safetensors, index.json

The key is a hash of what the embeddings depend on, so another set of prompts or another encoder is another cache. The
folder appears under its name only when it is complete.
"""

import gc
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.backbones.prompt_lengths import warn_of_cut_prompts
from fewstep.backbones.protocol import Conditioning, ModelAdapter
from fewstep.data.encoders import encoder_identity
from fewstep.errors import CheckpointError
from fewstep.runs.writing import explain_write_errors

PROMPTS_PER_SHARD = 1024
PROMPTS_PER_CALL = 32
INDEX = "index.json"
NULL = "null.safetensors"

Progress = Callable[[int, int], None]
"""Told how many prompts of how many are embedded."""


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings of a list of prompts, read from disk as they are asked for.

    Attributes:
        folder: Of this cache.
        num_prompts: Length of the list.
        prompts_per_shard: Prompts in every file but the last.
    """

    folder: Path
    num_prompts: int
    prompts_per_shard: int

    def __len__(self) -> int:
        return self.num_prompts

    def batch(self, indices: Sequence[int]) -> Conditioning:
        """Embeddings of the prompts at ``indices``, in that order, on the CPU."""
        rows = [self._row(index) for index in indices]
        return Conditioning({name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    @cached_property
    def null(self) -> Conditioning:
        """The unconditional branch: one row, on the CPU."""
        return Conditioning(_read(self.folder / NULL))

    @cached_property
    def _shards(self) -> list[dict[str, Tensor]]:
        # load_file maps the file into memory: rows are read from disk when they are indexed
        count = -(-self.num_prompts // self.prompts_per_shard)
        return [_read(self.folder / _shard_name(number)) for number in range(count)]

    def _row(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.num_prompts:
            raise IndexError(f"prompt {index} of {self.num_prompts}")
        shard, row = divmod(index, self.prompts_per_shard)
        return {name: value[row] for name, value in self._shards[shard].items()}


def open_or_build(
    folder: Path,
    adapter: ModelAdapter,
    prompts: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_progress: Progress | None = None,
) -> EmbeddingCache:
    """Open the cache of these prompts, or embed them first; the text encoders leave memory before this returns.

    Args:
        folder: Where caches are kept, one folder below for each.
        adapter: Of the teacher whose text encoders are used.
        prompts: In the order of their indices.
        device: Where the text encoders run.
        dtype: Of the text encoders and of the embeddings.
        on_progress: Called while prompts are embedded.

    Raises:
        CheckpointError: A file of an existing cache is damaged; the message says what to delete.
        ConfigError: The folder cannot be written, or the text encoders cannot be loaded.
    """
    key = cache_key(adapter, prompts, dtype=dtype)
    published = folder / key
    if not published.exists():
        _build(published, adapter, prompts, device=device, dtype=dtype, on_progress=on_progress)
    return _open(published, len(prompts))


def cache_key(adapter: ModelAdapter, prompts: Sequence[str], *, dtype: torch.dtype) -> str:
    """Name what the embeddings depend on, and nothing else: 32 hexadecimal digits."""
    facts = {
        "format": 1,
        "prompts": list(prompts),
        "encoders": encoder_identity(adapter),
        "dtype": str(dtype),
    }
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def _build(
    published: Path,
    adapter: ModelAdapter,
    prompts: Sequence[str],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    on_progress: Progress | None,
) -> None:
    unfinished = published.with_name(f".building-{published.name}-{uuid.uuid4().hex[:8]}")
    try:
        with explain_write_errors(published):
            unfinished.mkdir(parents=True)
        _embed(unfinished, adapter, prompts, device=device, dtype=dtype, on_progress=on_progress)
        with explain_write_errors(published):
            _write_index(unfinished, len(prompts))
            _publish(unfinished, published)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        _release(device)


def _embed(
    folder: Path,
    adapter: ModelAdapter,
    prompts: Sequence[str],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    on_progress: Progress | None,
) -> None:
    """Write every shard; the pipeline is known to this function only, so it is free when this returns."""
    pipeline = adapter.load_pipeline(dtype=dtype, **{adapter.network_component: None, "vae": None})
    pipeline.to(device)
    warn_of_cut_prompts(adapter, pipeline, prompts)
    _write(folder / NULL, [adapter.encode_null(pipeline)], dtype)
    for number, start in enumerate(range(0, len(prompts), PROMPTS_PER_SHARD)):
        parts = []
        stop = min(start + PROMPTS_PER_SHARD, len(prompts))
        for first in range(start, stop, PROMPTS_PER_CALL):
            last = min(first + PROMPTS_PER_CALL, stop)
            parts.append(adapter.encode(pipeline, prompts[first:last]).to("cpu"))
            if on_progress is not None:
                on_progress(last, len(prompts))
        _write(folder / _shard_name(number), parts, dtype)


def _write(path: Path, parts: Sequence[Conditioning], dtype: torch.dtype) -> None:
    whole = Conditioning.cat(parts).to("cpu")
    tensors = {name: _stored(value, dtype) for name, value in whole.tensors.items()}
    with explain_write_errors(path):
        save_file(tensors, path)


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    # masks and ids keep their type; copied, because the pipeline may return views of one storage
    return value.to(dtype if value.is_floating_point() else value.dtype).clone(memory_format=torch.contiguous_format)


def _write_index(folder: Path, num_prompts: int) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    index = {"num_prompts": num_prompts, "prompts_per_shard": PROMPTS_PER_SHARD, "bytes": sizes}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _publish(unfinished: Path, published: Path) -> None:
    try:
        unfinished.rename(published)
    except OSError:
        # another process was faster: its cache has the same key, so the same content
        if not published.is_dir():
            raise


def _open(folder: Path, num_prompts: int) -> EmbeddingCache:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sizes, per_shard = dict(index["bytes"]), int(index["prompts_per_shard"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / INDEX, "it cannot be read") from error
    for name, expected in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            raise _damaged(path, "it is missing" if found is None else f"it has {found} bytes instead of {expected}")
    return EmbeddingCache(folder, num_prompts, per_shard)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} of the prompt-embedding cache is damaged ({reason}). Delete {path.parent}; it is computed again."
    )


def _shard_name(number: int) -> str:
    return f"prompts-{number:05d}.safetensors"


def _release(device: torch.device | str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
