"""Built-in recipes: they load, and they say what the algorithm's specification says."""

import pytest

from fewstep.config import load_recipe, recipe_names, recipe_source
from fewstep.config.recipe_files import recipe_summary
from fewstep.core.schedules import FixedSchedule, RandomLengthSchedule, UniformLevels
from fewstep.core.sigmas import SigmaRange, Uniform, UniformBelowQuery
from fewstep.errors import ConfigError
from fewstep.methods.terms import OffTrajectory
from fewstep.planning.cost import forward_units


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_is_complete(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.config.terms.active()


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_says_in_its_first_line_what_it_is(name: str) -> None:
    assert recipe_source(name).startswith(f"# {name}: ")
    assert len(recipe_summary(name)) > 20


def test_sd3_medium_states_the_published_optimisation() -> None:
    config = load_recipe("sd3-medium").config
    assert (config.batch, config.budget.student_updates, config.student.every) == (128, 2000, 2)
    assert (config.student.lr, config.fake_score.lr) == (1e-5, 5e-6)
    for role in (config.student, config.fake_score):
        assert (role.warmup, role.betas, role.eps, role.weight_decay, role.clip) == (100, (0.9, 0.999), 1e-8, 1e-4, 1.0)
        assert role.lr_schedule == "constant"
    assert config.student.ema == 0.999


def test_sd3_medium_states_the_published_method() -> None:
    config = load_recipe("sd3-medium").config
    assert config.schedule == RandomLengthSchedule(min_steps=1, max_steps=28, inner=UniformLevels(low=0.25, high=0.95))
    assert config.sigma_range == SigmaRange(low=0.02, high=0.98)
    terms = config.terms
    assert terms.ca is not None
    assert terms.dm is not None
    assert terms.cdm is not None
    assert (terms.ca.scale, terms.ca.query.at, terms.ca.probe) == (7.0, "anchor", UniformBelowQuery())
    assert (terms.dm.query.at, terms.dm.probe, terms.dm.guidance_scale) == ("anchor", Uniform(), 1.0)
    assert (terms.cdm.query, terms.cdm.probe) == (OffTrajectory(sigma=Uniform()), Uniform())
    assert [term.weight for term in terms.active().values()] == [1.0, 1.0, 1.0]
    assert [term.floor for term in terms.active().values()] == [0.1, 0.1, 0.1]
    align = config.fake_score.align
    assert align is not None
    assert (align.decay, align.after, align.every) == (0.999, "fake_score", 1)


def test_sd3_medium_states_the_published_sampling() -> None:
    sampling = load_recipe("sd3-medium").config.sampling
    assert sampling.levels == (1.0, 0.75, 0.5, 0.25)
    assert (sampling.teacher_steps, sampling.teacher_guidance_scale) == (50, 4.5)


@pytest.mark.parametrize("name", ["d-dmd", "digits-d-dmd"])
def test_d_dmd_is_the_base_on_a_fixed_grid_without_cdm(name: str) -> None:
    base, config = load_recipe({"d-dmd": "sd3-medium"}.get(name, "digits")).config, load_recipe(name).config
    assert config.schedule == FixedSchedule(levels=config.sampling.levels)
    assert (config.terms.ca, config.terms.dm, config.terms.cdm) == (base.terms.ca, base.terms.dm, None)


@pytest.mark.parametrize(
    ("name", "of", "cheap"), [("d-dmd", "sd3-medium", "cheap-cdm"), ("digits-d-dmd", "digits", "digits-cheap-cdm")]
)
def test_cheap_cdm_has_the_terms_of_cdm_on_the_grid_of_d_dmd(name: str, of: str, cheap: str) -> None:
    d_dmd, cdm, config = (load_recipe(recipe).config for recipe in (name, of, cheap))
    assert config == d_dmd.model_copy(update={"terms": cdm.terms})
    # the counts that its first line and docs/scaling.md tell
    assert forward_units(config) / forward_units(d_dmd) == pytest.approx(1.3, abs=0.01)
    assert forward_units(cdm) / forward_units(d_dmd) > 1.8


@pytest.mark.parametrize(("name", "of"), [("dp-dmd", "dmd2"), ("digits-dp-dmd", "digits-dmd2")])
def test_dp_dmd_is_dmd2_with_a_first_step_that_ends_at_the_students_second_level(name: str, of: str) -> None:
    dmd2, config = load_recipe(of).config, load_recipe(name).config
    dp, dm = config.terms.dp, dmd2.terms.dm
    assert config == dmd2.model_copy(update={"terms": dmd2.terms.model_copy(update={"dp": dp})})
    assert dp is not None and dm is not None
    assert (dp.to, dp.guidance_scale, dp.weight) == (config.sampling.levels[1], dm.guidance_scale, 0.05)


@pytest.mark.parametrize(("name", "guidance_scale"), [("dmd2", 4.5), ("digits-dmd2", 1.5)])
def test_dmd2_is_one_guided_term_with_five_fake_updates_and_no_alignment(name: str, guidance_scale: float) -> None:
    config = load_recipe(name).config
    assert list(config.terms.active()) == ["dm"]
    assert config.terms.dm is not None
    assert config.terms.dm.guidance_scale == guidance_scale
    assert config.student.every == 5
    assert config.fake_score.align is None
    assert config.schedule == FixedSchedule(levels=config.sampling.levels)


def test_a_recipe_without_a_name_like_it_lists_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'digts'. Did you mean digits or .*are .*d-dmd, digits, "):
        load_recipe("digts")
