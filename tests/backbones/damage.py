"""Weights of a saved pipeline folder, damaged on purpose."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FILES = {
    "network": "transformer/diffusion_pytorch_model.safetensors",
    "VAE": "vae/diffusion_pytorch_model.safetensors",
    "text encoder 2": "text_encoder_2/model.safetensors",
}
WEIGHTS = {
    "network": "proj_out.bias",
    "VAE": "decoder.conv_out.bias",
    "text encoder 2": "text_projection.weight",
}


def put(folder: Path, part: str, value: float) -> None:
    """Set one weight of a part of a tiny SD3 pipeline."""
    path = folder / FILES[part]
    tensors = load_file(path)
    tensors[WEIGHTS[part]].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})


def as_whole_numbers(folder: Path, part: str, *, pickled: bool = False) -> None:
    """Store the weights of a part as int64."""
    path = folder / FILES[part]
    tensors = {name: (1000 * value).to(torch.int64) for name, value in load_file(path).items()}
    if pickled:
        path.unlink()
        name = "pytorch_model.bin" if path.name == "model.safetensors" else f"{path.stem}.bin"
        torch.save(tensors, path.with_name(name))
    else:
        save_file(tensors, path, metadata={"format": "pt"})
