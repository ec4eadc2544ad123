"""The teacher inside the package is a stock pipeline like any other."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.backbones import create_model_adapter
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.errors import ConfigError
from fewstep.export import export_student
from fewstep.sampling import load_model

PROMPTS = ["a red handwritten three", "a handwritten digit"]


def test_embedded_teacher_says_how_it_is_drawn() -> None:
    adapter = create_model_adapter("fewstep:digits")
    expected = SD3Adapter.config_class(model="fewstep:digits", height=32, width=32, max_sequence_length=1)
    assert adapter.config == expected


def test_wrong_number_of_text_tokens_is_refused() -> None:
    """256 zero tokens, the pipeline's default, would spoil every picture of the embedded teacher."""
    with pytest.raises(ConfigError, match=r"max_sequence_length is 256, but fewstep:digits was made with 1"):
        create_model_adapter("fewstep:digits", SD3Adapter.config_class(model="fewstep:digits", height=32, width=32))


def test_exported_embedded_network_draws_the_same_in_stock_diffusers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = create_model_adapter("fewstep:digits")
    done = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=(1.0, 0.75, 0.5, 0.25))
    ours = load_model(done.folder, "cpu")
    noise = torch.randn(2, *ours.latent_shape, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(done.stock_call, names)
    stock = names["pipeline"](PROMPTS, latents=noise, output_type="latent", **names["call"]).images
    torch.testing.assert_close(ours.latents(PROMPTS, [0, 0], noise=noise), stock, rtol=1e-5, atol=1e-5)
