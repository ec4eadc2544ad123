import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.core.sigmas import LogitNormal, SameAsQuery, SigmaRange, Uniform, UniformBelowQuery, level
from tests.golden import functions, values

RANGE = SigmaRange()


@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=9), st.floats(0, 1, width=32))
def test_the_probe_of_ca_is_never_above_its_query(u: list[float], query: float) -> None:
    query_sigma = torch.full((len(u),), query)
    assert (UniformBelowQuery().sigma(torch.tensor(u), query_sigma=query_sigma) <= query_sigma).all()


def test_clamping_puts_the_tails_on_the_bounds_and_moves_nothing_else() -> None:
    clamped = RANGE.clamp(torch.tensor([0.0, 0.01, 0.5, 0.99]))
    torch.testing.assert_close(clamped, torch.tensor([0.02, 0.02, 0.5, 0.98]))


@pytest.mark.parametrize(
    ("law", "tag"),
    [
        (Uniform(), "uniform"),
        (UniformBelowQuery(), "uniform_capped"),
        (LogitNormal(mean=-1.0), "logit_normal.m-1.0"),
        (LogitNormal(mean=0.0), "logit_normal.m0.0"),
    ],
)
def test_laws_give_the_published_noise_levels_for_the_published_draws(law: Uniform, tag: str) -> None:
    draws = functions()
    raw = torch.from_numpy(draws[f"sigmas.{tag}.raw_draw"]).float()
    u = torch.special.ndtr(raw.double() - law.mean).float() if isinstance(law, LogitNormal) else raw
    query = torch.from_numpy(draws["sigmas.uniform_capped.upper_bound"]).float() if tag == "uniform_capped" else u
    sigma = RANGE.clamp(law.sigma(u, query_sigma=query))
    expected = torch.from_numpy(draws[f"sigmas.{tag}.sigma"]).float().reshape(-1)
    # the quantile of a float32 uniform keeps four digits in the tails
    torch.testing.assert_close(sigma.reshape(-1), expected, atol=1e-4, rtol=1e-4)


def test_as_many_draws_sit_on_the_bounds_as_published() -> None:
    sigma = RANGE.clamp(torch.from_numpy(functions()["sigmas.uniform.raw_draw"]).float())
    published = values()["sigmas.uniform"]
    assert np.isclose((sigma == 0.02).float().mean(), published["frac_at_min"])
    assert np.isclose((sigma == 0.98).float().mean(), published["frac_at_max"])


def test_a_probe_at_the_same_level_ignores_its_draw_and_the_range() -> None:
    query = torch.tensor([0.3, 0.7, 1.0])
    assert torch.equal(level(SameAsQuery(), torch.rand(3), query_sigma=query, within=RANGE), query)


@pytest.mark.parametrize("law", [Uniform(), UniformBelowQuery(), LogitNormal(std=9.0)])
def test_a_level_that_is_drawn_stays_in_the_range(law: Uniform | UniformBelowQuery | LogitNormal) -> None:
    u = torch.tensor([1e-4, 0.5, 1 - 1e-4])
    drawn = level(law, u, query_sigma=torch.ones(3), within=RANGE)
    torch.testing.assert_close(drawn, torch.tensor([0.02, 0.5, 0.98]))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: SigmaRange(0.9, 0.1), "low 0.9 and high 0.1 must satisfy 0 <= low < high <= 1"),
        (lambda: Uniform(low=-0.1), "low -0.1 and high 1.0 must satisfy 0 <= low < high <= 1"),
        (lambda: LogitNormal(std=0.0), "std 0.0 must be positive"),
    ],
)
def test_impossible_laws_are_refused_with_their_values(build: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("<", "<")):
        build()  # type: ignore[operator]
