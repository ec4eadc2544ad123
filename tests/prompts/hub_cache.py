"""A download cache as huggingface_hub keeps it, so that it finds the files of a set without a hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fewstep.prompts.training_sets import TRAINING_SETS


def put_set(cache: Path, name: str, *texts: Sequence[str | None]) -> list[Path]:
    """Write one list of prompts into each file of a named set; returns the blobs, which the names are links to."""
    found = TRAINING_SETS[name]
    folder = cache / f"datasets--{found.hub.dataset.replace('/', '--')}"
    blobs = []
    for file, column in zip(found.hub.files, texts, strict=True):
        blob = folder / "blobs" / hashlib.sha256(file.encode()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": range(len(column)), found.column: pa.array(column, pa.string())}), blob)
        link = folder / "snapshots" / str(found.hub.revision) / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        blobs.append(blob)
    return blobs
