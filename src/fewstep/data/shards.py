"""Files of rows: every tensor of many prompts one behind the other, memory-mapped when read.

    NAME              the rows of one tensor, without the zeros at their ends
    NAME:ends         where each row ends
    :rows, :prompts   digests of the stored rows, and of the rows that the file's prompts have

A file's name ends with the SHA-256 of its content, so a file that is there under its name is whole or is found out.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fewstep.data.stored_prompt import DIGEST_BYTES, StoredPrompt
from fewstep.errors import CheckpointError
from fewstep.files import UnreadableError, explain_write_errors, fsync
from fewstep.seals import BrokenSealError, seal
from fewstep.tensors import all_tensors

ENDS, ROWS, PROMPTS = ":ends", ":rows", ":prompts"
_HASH_DIGITS = 32


@dataclass(frozen=True)
class Shard:
    """One file, mapped into memory: rows are read from the disk when they are asked for."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.tensors[ROWS])

    @property
    def is_complete(self) -> bool:
        """Whether every row has its tensors, from its place to its end."""
        names = [key for key in self.tensors if not key.startswith(":") and not key.endswith(ENDS)]
        known = {ROWS, PROMPTS, *names, *(name + ENDS for name in names)}
        if self.tensors.keys() != known or any(
            self.tensors[key].shape[1:] != (DIGEST_BYTES,) for key in (ROWS, PROMPTS)
        ):
            return False
        return all(self._is_cut_well(name) for name in names)

    def _is_cut_well(self, name: str) -> bool:
        ends = self.tensors[name + ENDS]
        if ends.shape != (len(self),) or ends.dtype != torch.int64:
            return False
        if not len(ends):
            return True
        return bool(ends[0] >= 0) and bool((ends.diff() >= 0).all()) and int(ends[-1]) == len(self.tensors[name])

    def row(self, number: int) -> StoredPrompt:
        """One stored row, as views of the file."""
        return {name: self.tensors[name][start:end] for name, (start, end) in self._bounds(number)}

    def row_lengths(self, name: str) -> set[int]:
        """How many entries of a tensor the stored rows have, the zeros at their ends left out."""
        ends = self.tensors[name + ENDS]
        return set(ends.diff(prepend=ends.new_zeros(1)).tolist())

    @property
    def row_digests(self) -> list[bytes]:
        """Names of the stored rows, in their order."""
        return _unpack(self.tensors[ROWS])

    @property
    def prompt_digests(self) -> list[bytes]:
        """Names of the rows of the prompts that the file is about, in their order; other files may hold them."""
        return _unpack(self.tensors[PROMPTS])

    def _bounds(self, number: int) -> Iterator[tuple[str, tuple[int, int]]]:
        for key, ends in self.tensors.items():
            if key.endswith(ENDS):
                places = ends.numpy()  # on the CPU: no tensor is asked for single values in a training step
                yield key.removesuffix(ENDS), (int(places[number - 1]) if number else 0, int(places[number]))


def write_shard(folder: Path, number: int, rows: Mapping[bytes, StoredPrompt], *, prompts: Sequence[bytes]) -> Path:
    """Write rows; the file appears under its name when it is on the disk as a whole.

    Args:
        folder: Where.
        number: Of the shard.
        rows: What to store, by digest.
        prompts: Digest of each prompt's row, here or in another shard.
    """
    tensors = {ROWS: _pack(list(rows)), PROMPTS: _pack(prompts)}
    for name in next(iter(rows.values()), {}):
        parts = [row[name] for row in rows.values()]
        tensors[name] = torch.cat(parts)
        tensors[name + ENDS] = torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(0)
    unfinished = folder / f".unfinished-{uuid.uuid4().hex}"
    with explain_write_errors(folder):
        try:
            save_file(tensors, unfinished)
            fsync(unfinished)
            path = folder / f"{_stem(number)}-{seal(unfinished).sha256[:_HASH_DIGITS]}.safetensors"
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return path


def open_shard(path: Path) -> Shard:
    """Map a file into memory.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    shard = Shard(read_tensors(path))
    if not shard.is_complete:
        raise damaged(path, "it does not hold what a file of rows consists of")
    return shard


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file of the cache into memory."""
    try:
        return all_tensors(path)
    except UnreadableError as error:
        raise damaged(path, str(error)) from error


def find_shard(folder: Path, number: int) -> Path | None:
    """The finished file of a number, by its name alone."""
    return min(folder.glob(f"{_stem(number)}-*.safetensors"), default=None)


def is_whole(path: Path) -> bool:
    """Whether the content is what the name says."""
    try:
        return is_named_by(path.name, seal(path).sha256)
    except BrokenSealError:
        return False


def is_named_by(name: str, sha256: str) -> bool:
    """Whether a file's name ends with the beginning of this SHA-256."""
    return Path(name).stem.rpartition("-")[2] == sha256[:_HASH_DIGITS]


def without_rows(path: Path, number: int, superfluous: set[bytes]) -> Path:
    """Write a shard again without some of its rows, which other shards hold; the old file goes."""
    shard = open_shard(path)
    kept = {name: shard.row(i) for i, name in enumerate(shard.row_digests) if name not in superfluous}
    smaller = write_shard(path.parent, number, kept, prompts=shard.prompt_digests)
    if smaller != path:
        path.unlink(missing_ok=True)
    return smaller


def damaged(path: Path, reason: str) -> CheckpointError:
    """The error about a file of the cache that cannot be used."""
    return CheckpointError(
        f"{path} of the prompt-embedding cache is damaged ({reason}). Delete {path.parent}; it is computed again."
    )


def _stem(number: int) -> str:
    return f"prompts-{number:05d}"


def _pack(digests: Sequence[bytes]) -> Tensor:
    if not digests:
        return torch.empty(0, DIGEST_BYTES, dtype=torch.uint8)
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, DIGEST_BYTES)


def _unpack(packed: Tensor) -> list[bytes]:
    return [bytes(row) for row in packed.numpy()]
