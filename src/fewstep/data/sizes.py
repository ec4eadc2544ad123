"""What prompt embeddings take on disk: measured on some of them, or computed from the shapes before anything is loaded.

Computed sizes count the padding; what is measured does not, where an encoder has a mask or pads with zeros.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fewstep.core.conditioning import PromptTensor


@dataclass(frozen=True)
class SizeEstimate:
    """What the embeddings of a list of prompts take.

    Attributes:
        num_prompts: Without repetitions.
        bytes_per_prompt: On disk.
        measured_on: How many prompts were measured; 0 where the sizes follow from the shapes.
    """

    num_prompts: int
    bytes_per_prompt: int
    measured_on: int = 0

    @property
    def total_bytes(self) -> int:
        return self.num_prompts * self.bytes_per_prompt

    def sentence(self, folder: Path) -> str:
        """The estimate and what is free on the disk of ``folder``, for a user."""
        where = f"measured on {self.measured_on}" if self.measured_on else "from the shapes, padding included"
        return (
            f"Embeddings of {self.num_prompts} prompts: {self.bytes_per_prompt} bytes each ({where}), "
            f"{gib(self.total_bytes)} in all; {gib(free_bytes(folder))} are free in {folder}."
        )


def free_bytes(folder: Path) -> int:
    """Free space of the disk on which a folder is or will be made."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(existing).free


def gib(num_bytes: int) -> str:
    """Bytes as a text in GiB, with enough digits for small ones."""
    return f"{num_bytes / 2**30:.3g} GiB" if num_bytes < 100 * 2**30 else f"{num_bytes / 2**30:.0f} GiB"


def estimate_from_shapes(
    shapes: Mapping[str, PromptTensor], *, num_prompts: int, embeddings: torch.dtype
) -> SizeEstimate:
    """Compute what embeddings take with all their padding.

    Args:
        shapes: Of one prompt, as the adapter says.
        num_prompts: Without repetitions.
        embeddings: The dtype they are kept in.
    """
    return SizeEstimate(num_prompts, sum(tensor.num_bytes(embeddings) for tensor in shapes.values()))
