"""What prompt embeddings take on disk: measured on some of them, or computed from the shapes before anything is loaded.

Computed sizes count the padding; what is measured does not, where an encoder has a mask or pads with zeros.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.registry import adapter_class
from fewstep.backbones.source import open_checkpoint
from fewstep.errors import ConfigError

CLIP_TOKENS = 77
LONGCAT_TOKENS = 512
MASK_BYTES = 8

Shapes = dict[str, tuple[int, ...]]

# of the released checkpoints, under the names of their configurations
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "sd3": {"joint_attention_dim": 4096, "pooled_projection_dim": 2048},
    "flux": {"joint_attention_dim": 4096, "pooled_projection_dim": 768},
    "longcat": {"joint_attention_dim": 3584},
    "pixart": {"caption_channels": 4096},
    "sana": {"caption_channels": 2304},
    "sd15": {"cross_attention_dim": 768},
    "sdxl": {
        "cross_attention_dim": 2048,
        "projection_class_embeddings_input_dim": 2816,
        "addition_time_embed_dim": 256,
    },
}


@dataclass(frozen=True)
class SizeEstimate:
    """What the embeddings of a list of prompts take.

    Attributes:
        num_prompts: Without repetitions.
        bytes_per_prompt: On disk.
        padded_bytes_per_prompt: In a batch, padding included.
        measured_on: How many prompts were measured; 0 where the sizes follow from the shapes.
    """

    num_prompts: int
    bytes_per_prompt: int
    padded_bytes_per_prompt: int
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


def estimate_from_shapes(backbone: BackboneConfig, *, num_prompts: int, element_bytes: int) -> SizeEstimate:
    """Compute what embeddings take with all their padding; nothing is loaded or fetched.

    Args:
        backbone: A local folder's own widths are used, else those of the family's released checkpoints.
        num_prompts: Without repetitions.
        element_bytes: Of one number of an embedding.

    Raises:
        ConfigError: The shapes of this family are not known here.
    """
    shapes = prompt_shapes(backbone, _components(backbone))
    size = sum(
        prod(shape) * (MASK_BYTES if name.endswith("_mask") else element_bytes) for name, shape in shapes.items()
    )
    return SizeEstimate(num_prompts, size, size)


def prompt_shapes(backbone: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> Shapes:
    """Shapes of the tensors that a family's adapter makes of one prompt.

    Raises:
        ConfigError: They are not known here.
    """
    if backbone.kind not in PUBLISHED:
        raise ConfigError(
            f"backbone.kind is {backbone.kind}, whose prompt embeddings have no size known from their shapes; leave "
            f"--estimate out to measure them. Known are {', '.join(PUBLISHED)}."
        )
    network = components[adapter_class(backbone.kind).network_component]
    clip_tokens = int(components.get("text_encoder", {}).get("max_position_embeddings", CLIP_TOKENS))
    tokens = int(getattr(backbone, "max_sequence_length", 0))
    match backbone.kind:
        case "sd3":
            embeds, pooled = (clip_tokens + tokens, network["joint_attention_dim"]), network["pooled_projection_dim"]
        case "flux":
            embeds, pooled = (tokens, network["joint_attention_dim"]), network["pooled_projection_dim"]
        case "longcat":
            return {"prompt_embeds": (LONGCAT_TOKENS, network["joint_attention_dim"])}
        case "pixart" | "sana":
            return {"prompt_embeds": (tokens, network["caption_channels"]), "prompt_attention_mask": (tokens,)}
        case "sd15":
            return {"prompt_embeds": (clip_tokens, network["cross_attention_dim"])}
        case _:  # sdxl
            embeds = (clip_tokens, network["cross_attention_dim"])
            pooled = network["projection_class_embeddings_input_dim"] - 6 * network["addition_time_embed_dim"]
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": (pooled,)}


def _components(backbone: BackboneConfig) -> Mapping[str, Mapping[str, Any]]:
    if Path(backbone.origin).is_dir() or backbone.origin.startswith("fewstep:"):
        return open_checkpoint(backbone.origin, backbone.revision).components
    return {adapter_class(backbone.kind).network_component: PUBLISHED.get(backbone.kind, {})}
