"""What is CogVideoX's own: frames in pairs, even grids, and the larger models of its pipeline."""

from typing import Any

import pytest
import torch

from fewstep.backbones.cogvideox import CogVideoXAdapter
from fewstep.errors import ConfigError
from tests.backbones import tiny
from tests.backbones.families import published_files


def adapter_of(network: dict[str, Any] | None = None, **config: Any) -> CogVideoXAdapter:
    files = published_files("THUDM--CogVideoX-2b", **(network or {}))
    components = tiny.whole(files, "CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX")
    return CogVideoXAdapter(CogVideoXAdapter.config_class(model="M", **config), components)


def test_latents_have_an_axis_of_frames() -> None:
    assert adapter_of().latent_shape(480, 720) == (16, 13, 60, 90)


@pytest.mark.parametrize("frames", [48, 5])
def test_frames_that_the_vae_does_not_give_back_are_refused(frames: int) -> None:
    with pytest.raises(ConfigError, match=rf"{frames} frames do not fit M: they are one and a multiple of 8"):
        adapter_of(frames=frames)


@pytest.mark.parametrize("levels", [[1.0, 0.9, 0.5], [1.0, 2 / 3, 1 / 3], [1.0, 0.5, 0.25]])
def test_a_grid_that_the_stock_sampler_does_not_make_is_refused(levels: list[float]) -> None:
    adapter = adapter_of()
    sigmas = adapter.to_sigma(torch.tensor([round(1000 * level) / 1000 for level in levels])).tolist()
    with pytest.raises(ConfigError, match="makes even grids only, of a number of steps that divides 1000"):
        adapter.student_scheduler(sigmas)


def test_a_network_that_turns_positions_is_refused() -> None:
    with pytest.raises(ConfigError, match="whose network turns its positions"):
        adapter_of({"use_rotary_positional_embeddings": True})
