"""What was written is drawn again before it is kept."""

import math
from pathlib import Path

import pytest
import torch

from fewstep.backbones import ModelAdapter
from fewstep.errors import CheckpointError
from fewstep.export.comparison import Difference, Rendering, Specimen
from fewstep.export.diffusers_folder import student_facts
from fewstep.export.export import export
from fewstep.sampling import load_model
from fewstep.testing.case import LEVELS, open_adapter, save
from fewstep.testing.suite.exporting import shaken
from tests.backbones.families import FAMILIES
from tests.training.tiny_run import recipe, run


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> ModelAdapter:
    return open_adapter(FAMILIES["sd3"], save(FAMILIES["sd3"], tmp_path_factory.mktemp("drawing") / "teacher"))


@pytest.fixture(scope="module")
def drawing(adapter: ModelAdapter) -> Specimen:
    return Specimen(adapter, student_facts(adapter, LEVELS, {}, step="euler"), "a red cat")


def test_a_drawing_is_the_picture_of_our_sampler(adapter: ModelAdapter, drawing: Specimen) -> None:
    drawn = drawing.by(adapter.load_network())
    loaded = load_model(adapter.config.model, "cpu")
    sigmas = adapter.to_sigma(torch.tensor(LEVELS))
    expected = loaded.latents(["a red cat"], [0], sigmas=sigmas, guidance_scale=1.0)
    torch.testing.assert_close(drawn.latents, expected, rtol=1e-5, atol=1e-5)
    assert (drawn.pixels - loaded.pixels(expected)).abs().max() <= 0.5 + 1e-3  # those are rounded


def test_files_that_draw_something_else_are_not_kept(adapter: ModelAdapter, drawing: Specimen, tmp_path: Path) -> None:
    drawn = drawing.by(adapter.load_network())
    with pytest.raises(CheckpointError, match=r"does not draw what the student of the run draws: latents differ by"):
        drawing.require_same(drawn, shaken(adapter), exact=True, where=tmp_path)
    assert drawing.require_same(drawn, shaken(adapter), exact=False, where=tmp_path).latents > 1e-3


def test_a_difference_is_in_parts_of_the_latents_and_in_levels_of_the_pixels() -> None:
    ours = Rendering(torch.full((1, 4, 2, 2), 2.0), torch.zeros(1, 3, 4, 4))
    theirs = Rendering(
        torch.full((1, 4, 2, 2), 2.5), torch.cat([torch.ones(1, 3, 2, 4), torch.full((1, 3, 2, 4), 5.0)], 2)
    )
    difference = Difference.between(ours, theirs)
    assert difference == Difference(0.25, 3.0, 5.0)
    assert str(difference) == "latents differ by 0.25 of their size, pixels by 3 of 255 on average and 5 at most"


def test_a_student_that_draws_no_numbers_is_not_exported(adapter: ModelAdapter, drawing: Specimen) -> None:
    broken = adapter.load_network()
    with torch.no_grad():
        next(broken.parameters()).fill_(math.inf)
    with pytest.raises(CheckpointError, match="draws numbers that are not finite, so it is not exported; look at the"):
        drawing.by(broken)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    return run(recipe(folder, "budget.student_updates=1"), folder / "run").path


@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-6), ("bf16", 0.2), ("fp16", 0.05)])
def test_the_difference_is_printed_and_in_the_readme(dtype: str, most: float, trained: Path, tmp_path: Path) -> None:
    done = export(trained, tmp_path / "student", dtype=dtype)
    assert done.difference is not None and done.difference.latents <= most
    assert dtype == "fp32" or done.difference.latents > 1e-5
    assert f"Read again from the written files and drawn: {done.difference}." in str(done)
    text = (done.folder / "README.md").read_text()
    assert f"with weights in {dtype} against the run's float32, {done.difference}." in text
