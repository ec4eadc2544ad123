"""What is Wan's own: frames, the clock of UniPC, and the models of its pipeline class that are not served."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.backbones import create_model_adapter
from fewstep.backbones.wan import WanAdapter
from fewstep.errors import ConfigError
from fewstep.sampling import sample
from fewstep.sampling.pictures import picture_paths, require_medium
from tests.backbones import tiny, tiny_wan
from tests.backbones.families import published_files


def adapter_of(
    scheduler: dict[str, Any] | None = None, index: dict[str, Any] | None = None, **config: Any
) -> WanAdapter:
    files = published_files(tiny_wan.WAN21, **tiny_wan.SMALL)
    files["scheduler"].update(scheduler or {})
    files["model_index"].update(index or {})
    components = tiny.whole(files, "WanTransformer3DModel", "AutoencoderKLWan")
    return WanAdapter(WanAdapter.config_class(model="M", **config), components)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny_wan.wan_pipeline(), tmp_path_factory.mktemp("wan") / "teacher")


def test_latents_have_an_axis_of_frames() -> None:
    assert adapter_of().latent_shape(480, 832) == (16, 21, 60, 104)
    assert adapter_of(frames=1).latent_shape(480, 832) == (16, 1, 60, 104)


def test_frames_that_the_vae_does_not_make_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"80 frames do not fit M: .* the nearest below are 77 \(backbone.frames\)"):
        adapter_of(frames=80)


def test_clock_is_the_one_of_the_stock_scheduler() -> None:
    """UniPC spaces levels down to 1/1000 instead of 0, and begins 1e-6 below pure noise; the shift is the same."""
    from diffusers import UniPCMultistepScheduler

    adapter = adapter_of()
    stock = UniPCMultistepScheduler.from_config(dict(adapter.components["scheduler"]))
    stock.set_timesteps(4)
    levels = torch.linspace(1, 0.001, 5)[:-1]
    torch.testing.assert_close(adapter.to_sigma(levels), stock.sigmas[:-1], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": "DDIMScheduler"}, "is a DDIMScheduler whose clock this backbone does not know"),
        ({"prediction_type": "epsilon"}, "needs a UniPCMultistepScheduler with use_flow_sigmas"),
    ],
)
def test_another_clock_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapter_of(changes)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"boundary_ratio": 0.875}, "is a WanPipeline of two networks that take turns at boundary_ratio=0.875"),
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "is a WanPipeline of two networks that take turns"),
    ],
)
def test_a_model_of_two_networks_is_refused(index: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapter_of(index=index)


def test_a_checkpoint_without_a_recipe_has_the_pipelines_own_size(folder: Path) -> None:
    adapter = create_model_adapter(folder)
    assert adapter.latent_shape(adapter.config.height, adapter.config.width) == (4, 21, 60, 104)


@pytest.mark.parametrize(("model", "output"), [("videos", "out.png"), ("pictures", "out.gif"), ("pictures", "out.mp4")])
def test_a_file_that_cannot_hold_what_is_made_is_refused(model: str, output: str) -> None:
    frame_rate = 16 if model == "videos" else None
    with pytest.raises(ConfigError, match=rf"M makes {model}, and the output is {output}; give a \."):
        require_medium(picture_paths(output, 1), model="M", frame_rate=frame_rate)


def test_a_png_is_refused_before_weights_are_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"makes videos, and the output is .*out.png; give a .gif or .mp4 file"):
        sample(folder, "a cat", output=tmp_path / "out.png")
