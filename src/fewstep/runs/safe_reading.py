"""Reading a checkpoint without running what it says.

``torch.distributed.checkpoint`` keeps its index and its plain values as pickles and loads them without restriction, so
a run folder from somebody else could execute anything. Here only the classes that an index consists of are loaded. What
it says is believed only where it fits: the checkpoint's own files, every element of a tensor once, the types asked for.
"""

import io
import math
import os
import pathlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from fewstep.errors import shown
from fewstep.pickles import require_tame, require_tame_weights
from fewstep.seals import Seal

_FILE = ".metadata"
_INDEX = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *((_INDEX, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_INDEX, name) for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    (_INDEX, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
}
_PATHS = {(module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")}


_LEAST_LIMIT = 2**20
"""Bytes that an index may have though the checkpoint's data are smaller; every entry points to some data."""


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PATHS:
            return pathlib.PurePath  # where it was written; a path of another system cannot be made here
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module == "torch" and isinstance(torch.__dict__.get(name), torch.dtype):
            return torch.__dict__[name]
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no checkpoint needs")


class PlainReader(dcp.FileSystemReader):
    """Reads a checkpoint's files; its index may name nothing but what an index consists of, and no other file.

    Args:
        checkpoint: The folder.
        seals: Of its files, which were compared with them.
    """

    def __init__(self, checkpoint: pathlib.Path, seals: Mapping[str, Seal]) -> None:
        super().__init__(checkpoint)
        self.seals = seals
        self._index: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The checkpoint's index.

        Raises:
            pickle.UnpicklingError: It names something else, or is no index at all.
        """
        if self._index is None:
            self._index = _plain_index(self._content(), self.seals)
            self._index.storage_meta = self._index.storage_meta or StorageMeta()
            self._index.storage_meta.load_id = self.load_id
        return self._index

    def _content(self) -> bytes:
        sizes = {name: one.bytes for name, one in self.seals.items()}
        own = sizes.pop(_FILE, 0)
        largest = max(_LEAST_LIMIT, sum(sizes.values()))
        if own > largest:
            raise pickle.UnpicklingError(f"it has {own} bytes, more than the {largest} that it could be about")
        with open(os.path.join(self.path, _FILE), "rb") as file:
            return file.read(own or largest)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what a plan asks for; a tensor that is not of the type asked for is refused, never cast."""
        for item in plan.items:
            stored = self.storage_data[item.storage_index]
            with open(os.path.join(self.path, stored.relative_path), "rb") as file:
                piece = self._slice_file(file, stored)
                require_tame_weights(piece)
                if item.type == LoadItemType.BYTE_IO:
                    planner.load_bytes(item, io.BytesIO(piece.read(-1)))
                    continue
                tensor = torch.load(piece, map_location="cpu", weights_only=True)
            target = planner.resolve_tensor(item).detach()
            if not isinstance(tensor, Tensor) or tensor.dtype != target.dtype or tensor.layout != torch.strided:
                found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"{shown(item.dest_index.fqn)} is stored as {found} and not as {target.dtype}")
            for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                tensor = tensor.narrow(dim, start, length)
            if tensor.shape != target.shape:
                raise ValueError(f"{shown(item.dest_index.fqn)} is stored with another shape than the index says")
            target.copy_(tensor)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done


class PlainPlanner(dcp.DefaultLoadPlanner):
    """Loads tensors and plain values (numbers, texts, tuples) of the types they had, nothing that could run.

    Args:
        whole: Whether everything in the checkpoint is asked for.
    """

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Compare what is stored with what is asked for, name by name."""
        super().set_up_planner(state_dict, metadata, is_coordinator)
        stored = {} if metadata is None else metadata.state_dict_metadata
        for name, wanted in self.state_dict.items():
            if name not in stored:
                raise ValueError(f"{shown(name)} is not in it")
            if (problem := _misfit(stored[name], wanted)) is not None:
                raise ValueError(f"{shown(name)} is stored {problem}")
        unknown = sorted(stored.keys() - self.state_dict.keys())
        if unknown and self.whole:
            raise ValueError(f"it holds {shown(unknown[0])}, which the run does not have")

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Check a plain value before it is taken over."""
        name = read_item.dest_index.fqn
        found, wanted = torch.load(value, weights_only=True), self.state_dict[name]
        if type(found) is not type(wanted):
            raise ValueError(f"{shown(name)} is stored as {type(found).__name__} and not as {type(wanted).__name__}")
        value.seek(0)
        super().load_bytes(read_item, value)


def _misfit(stored: TensorStorageMetadata | BytesStorageMetadata, wanted: Any) -> str | None:
    """How what the index says of a name differs from what the run has under it."""
    if not isinstance(wanted, Tensor):
        return "as a tensor and not as a plain value" if isinstance(stored, TensorStorageMetadata) else None
    if not isinstance(stored, TensorStorageMetadata):
        return "as a plain value and not as a tensor"
    if stored.properties.dtype != wanted.dtype:
        return f"as {stored.properties.dtype} and not as {wanted.dtype}"
    if stored.size != wanted.shape:
        return f"with shape {tuple(stored.size)} and not {tuple(wanted.shape)}"
    return None


def _plain_index(content: bytes, seals: Mapping[str, Seal]) -> Metadata:
    try:
        require_tame(content)
        metadata = _IndexUnpickler(io.BytesIO(content)).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it holds no index")
        _require_consistent(metadata, seals)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a pickle can leave out or exchange any part of its objects
        raise pickle.UnpicklingError("it holds no index") from error
    return metadata


def _require_consistent(metadata: Metadata, seals: Mapping[str, Seal]) -> None:
    """Refuse an index that is not about these files, or by which parts of a tensor would stay unread."""
    pieces: dict[str, list[tuple[int, ...]]] = {}
    for index, stored in metadata.storage_data.items():
        if not isinstance(stored.relative_path, str) or stored.relative_path not in seals:
            raise pickle.UnpicklingError(
                f"it refers to the file {shown(stored.relative_path)}, which is none of the checkpoint's"
            )
        if not 0 <= stored.offset <= stored.offset + stored.length <= seals[stored.relative_path].bytes:
            raise pickle.UnpicklingError(f"it refers to bytes that {shown(stored.relative_path)} does not have")
        if stored.transform_descriptors:
            raise pickle.UnpicklingError(f"{shown(index.fqn)} is stored in a way that no checkpoint needs")
        pieces.setdefault(index.fqn, []).append(tuple(index.offset or ()))
    for name, stored in metadata.state_dict_metadata.items():
        if isinstance(stored, BytesStorageMetadata):
            complete = name in pieces
        else:
            chunks = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in stored.chunks]
            known = isinstance(stored.properties.dtype, torch.dtype) and isinstance(stored.size, torch.Size)
            complete = known and _is_tiled(stored.size, chunks)
            complete = complete and {offset for offset, _ in chunks} <= set(pieces.get(name, ()))
        if not complete:
            raise pickle.UnpicklingError(f"parts of {shown(name)} are missing")


def _is_tiled(size: Sequence[int], chunks: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> bool:
    """Whether boxes (offset, sizes) lie one behind the other along one dimension and fill a tensor."""
    for offset, sizes in chunks:
        ends = zip(offset, sizes, size, strict=True)
        if not all(start >= 0 and length >= 0 and start + length <= whole for start, length, whole in ends):
            return False
    filled = [chunk for chunk in chunks if math.prod(chunk[1])]
    cut = {dim for _, sizes in filled for dim, whole in enumerate(size) if sizes[dim] != whole}
    if len(cut) != 1:
        return not cut and len(filled) == (math.prod(size) > 0)
    (dim,) = cut
    end = 0
    for offset, sizes in sorted(filled, key=lambda chunk: chunk[0][dim]):
        if offset[dim] != end:
            return False
        end += sizes[dim]
    return end == size[dim]
