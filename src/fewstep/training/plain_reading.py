"""Reading a checkpoint without running what it says.

``torch.distributed.checkpoint`` keeps its index and its plain values as pickles and loads them without restriction, so
a run folder from somebody else could execute anything. Here only the classes that an index consists of are loaded.
"""

import io
import os
import pathlib
import pickle
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

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


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PATHS:
            return pathlib.PurePath  # where it was written; a path of another system cannot be made here
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no checkpoint needs")


class PlainReader(dcp.FileSystemReader):
    """Reads a checkpoint's files; its index may name nothing but what an index consists of."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The checkpoint's index.

        Raises:
            pickle.UnpicklingError: It names something else, or is no index at all.
        """
        with open(os.path.join(self.path, ".metadata"), "rb") as file:
            metadata = _IndexUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it holds no index")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class PlainPlanner(dcp.DefaultLoadPlanner):
    """Loads tensors and plain values (numbers, texts, tuples), nothing that could run."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Check a plain value before it is taken over."""
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)
