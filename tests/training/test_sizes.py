"""Pictures of several sizes in one run: one size for each step, the same on every process and after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fewstep.backbones.flux import FluxAdapter
from fewstep.config.recipe import load_recipe
from fewstep.errors import ConfigError
from fewstep.methods.draws import Draws
from fewstep.planning.meta_networks import planned_adapter
from tests.backbones.families import REAL_CONFIGURATIONS
from tests.training.test_run import assert_same_state
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state

SIZES = "backbone.sizes=[[16, 16], [24, 12], [12, 24]]"
LATENTS = [(4, 8, 8), (4, 12, 6), (4, 6, 12)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the latents that each step draws."""
    shapes = []
    for_step = Draws.for_step

    def watched(*arguments: Any, **options: Any) -> Draws:
        shapes.append(options["latent_shape"])
        return for_step(*arguments, **options)

    monkeypatch.setattr(Draws, "for_step", watched)
    return shapes


def test_each_step_draws_one_of_the_sizes(drawn: list[tuple[int, ...]], tmp_path: Path) -> None:
    made = recipe(tmp_path, SIZES, "budget.student_updates=8", "report.sheet_every=8", "memory.microbatch=2")
    folder = run(made, tmp_path / "run")
    first_of_step = drawn[::2]  # two microbatches each
    assert drawn[1::2] == first_of_step
    assert set(first_of_step) == set(LATENTS)
    sheets = {path.name: Image.open(path).size for path in folder.sheets.iterdir()}
    assert sheets == {
        "update-000008-16x16.png": (5 * 16, 2 * 16),
        "update-000008-24x12.png": (5 * 12, 2 * 24),
        "update-000008-12x24.png": (5 * 24, 2 * 12),
    }


def test_a_resumed_run_goes_on_with_the_same_sizes(drawn: list[tuple[int, ...]], tmp_path: Path) -> None:
    made = recipe(tmp_path, SIZES)
    run(made, tmp_path / "whole")
    whole = list(drawn)
    drawn.clear()
    run_stopped_after(made, tmp_path / "stopped", steps=3)
    run(made, tmp_path / "stopped", resume=True)
    assert drawn == whole
    assert_same_state(saved_state(tmp_path / "stopped"), saved_state(tmp_path / "whole"))


def test_steps_that_share_a_trajectory_share_its_size(drawn: list[tuple[int, ...]], tmp_path: Path) -> None:
    run(recipe(tmp_path, SIZES, "budget.student_updates=6", "draw.reuse_trajectory=true"), tmp_path / "run")
    assert drawn[::2] == drawn[1::2]
    assert len(set(drawn)) > 1


def test_a_size_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"16 x 15 pixels do not fit .*teacher: height and width must be mult"):
        run(recipe(tmp_path, "backbone.sizes=[[16, 16], [16, 15]]"), tmp_path / "run")


def test_a_shift_that_grows_with_the_picture_is_that_of_each_size() -> None:
    components = REAL_CONFIGURATIONS["flux1-dev"].components
    levels = torch.tensor([1.0, 0.75, 0.5, 0.25])
    large = FluxAdapter(FluxAdapter.config_class(model="flux1-dev", height=1024, width=1024), components)
    small = FluxAdapter(FluxAdapter.config_class(model="flux1-dev", height=512, width=512), components)
    assert torch.equal(large.at_size(512, 512).to_sigma(levels), small.to_sigma(levels))
    assert not torch.equal(large.to_sigma(levels), small.to_sigma(levels))


def test_a_plan_counts_the_largest_size() -> None:
    config = load_recipe("sd3-medium", ["backbone.sizes=[[768, 1344], [1344, 1024], [512, 512]]"]).config.backbone
    assert (planned_adapter(config).config.height, planned_adapter(config).config.width) == (1344, 1024)
