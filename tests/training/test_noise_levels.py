"""One schedule rule for every backbone, and levels that do not fit are an error before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fewstep.backbones import create_model_adapter
from fewstep.backbones.configurations import complete
from fewstep.backbones.flow_match import linear_mu, shift_level
from fewstep.backbones.registry import adapter_class
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.config import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.sampling import teacher_sigmas
from fewstep.training.noise_levels import require_fitting_levels
from tests.backbones.families import REAL_CONFIGURATIONS
from tests.training.tiny_run import recipe, run

FLUX_SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "shift": 3.0,
}


def sd3(scheduler: dict[str, Any] | None = None, adapter: type[SD3Adapter] = SD3Adapter) -> SD3Adapter:
    components = dict(REAL_CONFIGURATIONS["sd3-medium"].components)
    components["scheduler"] = {**components["scheduler"], **(scheduler or {})}
    return adapter(SD3Adapter.config_class(model="somebody/sd3"), components)


def config(*overrides: str) -> RunConfig:
    return load_recipe("sd3-medium", overrides).config


def test_the_rule_reproduces_the_schedule_published_for_sd3() -> None:
    torch.testing.assert_close(teacher_sigmas(sd3(), 4), torch.tensor([1.0, 0.9, 0.75, 0.5]))


def test_the_rule_reproduces_the_schedule_published_for_flux_at_1024_pixels() -> None:
    levels = torch.linspace(1.0, 0.25, 4)
    scheduler = complete(FLUX_SCHEDULER, place="a file")
    sigmas = shift_level(levels, scheduler, lambda: linear_mu(scheduler, (1024 // 16) ** 2))
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.9045, 0.7595, 0.5128]), rtol=0, atol=5e-5)


def test_a_recipe_overrides_the_levels_of_its_student(tmp_path: Path) -> None:
    made = recipe(tmp_path, "sampling.levels=[1.0, 0.6]", "budget.student_updates=1")
    folder = run(made, tmp_path / "run")
    from fewstep.export.export import export

    done = export(folder.path, tmp_path / "student")
    adapter = create_model_adapter(done.folder, as_teacher=False)
    expected = adapter.to_sigma(torch.tensor([1.0, 0.6])).tolist()
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(done.folder, subfolder="scheduler")
    scheduler.set_timesteps(2)
    assert scheduler.sigmas.tolist() == pytest.approx([*expected, 0.0], abs=1e-6)
    assert "num_inference_steps=2" in done.stock_call


def test_the_recipes_own_levels_fit() -> None:
    require_fitting_levels(config(), sd3())


@pytest.mark.parametrize(
    ("override", "setting"),
    [
        ("sampling.levels=[1.0, 0.9999999999, 0.5]", r"sampling\.levels"),
        ("schedule={kind: fixed, levels: [1.0, 0.9999999999]}", r"schedule\.levels"),
        ("terms.isg={levels: [1.0, 0.9999999999]}", r"terms\.isg\.levels"),
        ("terms.dp={to: 0.9999999999, steps: 1}", r"terms\.dp"),
    ],
)
def test_levels_that_fall_on_one_sigma_are_refused(override: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting} does not fit somebody/sd3: its levels 1 and 1 become sigma 1"):
        require_fitting_levels(config("schedule.min_steps=2", override), sd3())


def test_a_clock_so_steep_that_the_teachers_grid_collapses_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sampling\.\w+ does not fit somebody/sd3: .* which do not descend"):
        require_fitting_levels(config(), sd3({"shift": 1e12}))


def test_a_clock_that_gives_no_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"become sigma nan and nan, which do not descend"):
        require_fitting_levels(config(), sd3({"shift": float("nan")}))


class UpToNine(SD3Adapter):
    """A network that was trained below pure noise only, whose clock was forgotten to follow."""

    @property
    def sigma_max(self) -> float:
        return 0.9


class UpToNineWithItsClock(UpToNine):
    def to_sigma(self, level: torch.Tensor) -> torch.Tensor:
        return 0.9 * level


def test_a_grid_that_does_not_start_where_the_network_does_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"first level becomes sigma 1, but this network starts from noise at 0\.9"):
        require_fitting_levels(config(), sd3(adapter=UpToNine))


def test_a_range_above_what_the_network_was_trained_at_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sigma_range\.low is 0\.95, but somebody/sd3 was trained up to sigma 0\.9"):
        require_fitting_levels(config("sigma_range={low: 0.95, high: 0.98}"), sd3(adapter=UpToNineWithItsClock))


def test_a_level_where_no_noise_is_left_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"last level 1e-50 becomes sigma 0, where no noise is left"):
        require_fitting_levels(config("sampling.levels=[1.0, 1.0e-50]"), sd3())


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("sd15", "DPMSolverMultistepScheduler"), ("cogvideox-2b", "CogVideoXDDIMScheduler")],
)
def test_steps_that_a_backbones_stock_scheduler_never_makes_are_refused(name: str, scheduler: str) -> None:
    made = load_recipe(name, ["simulation.step=renoise"]).config
    adapter = adapter_class(made.backbone.kind)(made.backbone, REAL_CONFIGURATIONS[name].components)
    with pytest.raises(
        ConfigError,
        match=rf"^simulation\.step is renoise, but \S+ would be exported with a {scheduler}, whose steps never "
        r"re-noise; set simulation\.step=euler\.$",
    ):
        require_fitting_levels(made, adapter)


def test_a_run_with_levels_that_do_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    made = recipe(tmp_path, "sampling.levels=[1.0, 0.9999999999]")
    with pytest.raises(ConfigError, match=r"sampling\.levels does not fit"):
        run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()
