"""How many text tokens of a prompt a plan counts, where training leaves out what a mask hides."""

from collections.abc import Mapping
from pathlib import Path

import torch

from fewstep.backbones.protocol import ModelAdapter
from fewstep.core.conditioning import Conditioning
from fewstep.data.building import INDEX
from fewstep.data.embeddings import described_text
from fewstep.errors import ConfigError, shown


def counted(adapter: ModelAdapter, embeddings: Path | None) -> int | None:
    """How many text tokens of every prompt a plan counts.

    Args:
        adapter: Its prompts are padded to ``max_sequence_length``.
        embeddings: Folder of prompts that were embedded for it, whose longest is counted; None counts all tokens.

    Returns:
        Their number; None where training leaves nothing out.

    Raises:
        ConfigError: The folder holds no embeddings, they are not of this backbone, or every token of them is seen.
        CheckpointError: They are damaged.
    """
    shapes = {name: tensor.shape for name, tensor in adapter.prompt_shapes().items()}
    shortest = _left(adapter, shapes, 1)
    cut = [name for name in shapes if shortest[name] != shapes[name]]
    if not cut or "max_sequence_length" not in type(adapter.config).model_fields:
        if embeddings is None:
            return None
        raise ConfigError(
            f"--embeddings is {embeddings}, but training a backbone of kind {adapter.kind} leaves no padding out, so "
            "the length of its prompts changes nothing; leave it out."
        )
    if embeddings is None:
        return shapes[cut[0]][0]
    if not (embeddings / INDEX).is_file():
        raise ConfigError(
            f"--embeddings is {embeddings}, which holds no embeddings (it has no {INDEX}); give the folder that "
            "fewstep embed names for this recipe."
        )
    found, longest = described_text(embeddings)
    if found != shapes:
        raise ConfigError(
            f"--embeddings is {embeddings}, whose prompts have the shapes {shown(found, 200)}, but those of "
            f"{adapter.config.model} have {shown(shapes, 200)}; give the folder that fewstep embed names for this "
            "recipe."
        )
    return _left(adapter, shapes, longest)[cut[0]][0]


def _left(adapter: ModelAdapter, shapes: Mapping[str, tuple[int, ...]], longest: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a prompt of so many tokens, without the padding that training leaves out."""
    tensors = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
    for value in tensors.values():
        if value.ndim > 1:
            value[:, :longest] = 1
    (left,) = adapter.without_padding(Conditioning(tensors))
    return {name: tuple(value.shape[1:]) for name, value in left.tensors.items()}
