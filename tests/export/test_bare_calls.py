"""Students whose folder says everything: stock diffusers, nothing but the prompt; and the table of all families."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from fewstep.export import export_student
from fewstep.sampling import load_model
from fewstep.sampling.pictures import to_pil
from fewstep.testing.case import open_adapter, save
from fewstep.testing.closeness import assert_same_pictures
from fewstep.testing.suite.exporting import shaken
from tests.backbones.families import FAMILIES
from tools.pages.bare_calls import filled, table

LEVELS = (1.0, 0.9, 0.75, 0.5)
PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"


@pytest.mark.slow  # at the size that a pipeline has by itself, which the tiny VAEs make smaller or not
@pytest.mark.parametrize(("name", "side"), [("flux2-klein", 128 * 2), ("qwen-image-2.1", 1024)])
def test_the_prompt_alone_draws_what_our_sampler_draws(name: str, side: int, tmp_path: Path) -> None:
    family = replace(FAMILIES[name], config={})
    adapter = open_adapter(family, save(family, tmp_path / "teacher"), (side, side))
    written = export_student(adapter, shaken(adapter), tmp_path / "student", levels=LEVELS)
    assert "`pipeline(prompt=...)` alone draws" in (written.folder / "README.md").read_text()
    torch.manual_seed(7)
    drawn = DiffusionPipeline.from_pretrained(written.folder)(prompt="a red cat").images[0]

    ours = load_model(written.folder, "cpu")
    torch.manual_seed(7)
    shape = family.noise_axes(torch.empty(1, *ours.latent_shape)).shape
    expected = to_pil(ours.pixels(ours.latents(["a red cat"], [0], noise=family.noise_axes(torch.randn(shape)))))[0]
    assert not isinstance(expected, list) and drawn.size == expected.size == (side, side)
    assert_same_pictures(np.asarray(drawn.convert("RGB")), np.asarray(expected))


def test_the_table_of_families_is_that_of_the_signatures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, table()) == page
