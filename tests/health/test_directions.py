"""Figures of a student update, against what is known without them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.core.points import NoisyLatent, renoise
from fewstep.health.directions import view_figures, view_sums
from fewstep.methods.terms import CfgAugmentation, DistributionMatching, Views
from tests.oracles import Gaussian

CA, DM = CfgAugmentation(scale=2.0), DistributionMatching()
SHAPE = (6, 4, 8, 8)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def views(student: Tensor, teacher: Tensor, *, guidance: Tensor | None = None, fake: Tensor | None = None) -> Views:
    return Views(student, NoisyLatent(student, torch.full((len(student),), 0.5)), teacher, guidance, fake)


def figures_of(terms: dict[str, Any], seen: dict[str, Views]) -> dict[str, float]:
    return {name: value.item() for name, value in view_figures(view_sums(terms, seen)).items()}


@pytest.mark.parametrize(("part", "lag"), [(1.0, 0.0), (0.5, 1.0), (0.25, 3.0), (2.0, -0.5)])
def test_a_fake_score_that_has_gone_a_part_of_the_way_lags_by_the_rest_over_it(part: float, lag: float) -> None:
    teacher, away = noise(0), noise(1)
    seen = views(teacher + away, teacher, fake=teacher + part * away)
    assert figures_of({"dm": DM}, {"dm": seen})["fake_lag"] == pytest.approx(lag, abs=1e-5)


def test_an_exact_fake_score_does_not_lag_however_much_its_probe_hides() -> None:
    theirs, students = Gaussian(mean=0.0, std=1.0), Gaussian(mean=1.0, std=0.7)
    x0 = 1.0 + 0.7 * noise(2, 64, 4, 16, 16)
    probe = renoise(x0, sigma=torch.linspace(0.1, 0.95, 64), noise=noise(3, 64, 4, 16, 16))
    told = {
        name: figures_of({"dm": DM}, {"dm": Views(x0, probe, theirs.x0(probe), None, fake.x0(probe))})["fake_lag"]
        for name, fake in {"exact": students, "behind": Gaussian(mean=0.25, std=1.0)}.items()
    }
    # 65,536 values, each hidden by its own noise: a standard error of about .01
    assert abs(told["exact"]) < 0.05
    assert told["behind"] > 1.0


def test_a_fake_score_that_is_the_teacher_has_no_distance_and_no_lag() -> None:
    seen = views(noise(0), noise(1), fake=noise(1))
    told = figures_of({"dm": DM}, {"dm": seen})
    assert told["fake_distance"] == told["fake_lag"] == told["norm/dm"] == 0.0


@pytest.mark.parametrize(("turn", "cosine"), [(3.0, 1.0), (-0.5, -1.0), (0.0, 0.0)])
def test_norms_and_cosine_of_ca_and_dm_are_those_of_their_directions(turn: float, cosine: float) -> None:
    student, teacher, guidance = noise(0), noise(1), noise(2)
    seen = {
        "ca": views(student, teacher, guidance=guidance),
        "dm": views(student, teacher, fake=teacher - turn * guidance),
    }
    told = figures_of({"ca": CA, "dm": DM}, seen)
    length = guidance.square().mean().sqrt().item()
    assert told["norm/ca"] == pytest.approx(2.0 * length, rel=1e-5)
    assert told["norm/dm"] == pytest.approx(abs(turn) * length, rel=1e-5)
    assert told["dm_to_ca"] == pytest.approx(abs(turn) / 2.0, rel=1e-5)
    assert told["cosine"] == pytest.approx(cosine, abs=1e-5)


def test_there_is_no_cosine_of_directions_at_different_answers() -> None:
    seen = {"ca": views(noise(0), noise(1), guidance=noise(2)), "dm": views(noise(0), noise(1), fake=noise(3))}
    assert "cosine" not in figures_of({"ca": CA, "dm": DM}, seen)


def test_the_share_of_floored_normalisers_counts_samples_and_terms() -> None:
    student = noise(0)
    near = student + 0.01
    near[0] += 1.0  # its error is above the floor
    seen = {
        "ca": views(student, near, guidance=noise(2)),
        "dm": views(student, student + 1.0, fake=noise(3)),
    }
    assert figures_of({"ca": CA, "dm": DM}, seen)["floored"] == pytest.approx(5 / 12)


def test_sums_of_parts_of_a_batch_are_those_of_the_whole() -> None:
    def sums(rows: slice) -> dict[str, Tensor]:
        student, teacher = noise(0)[rows], noise(1)[rows]
        seen = {
            "ca": views(student, teacher, guidance=noise(2)[rows]),
            "dm": views(student, teacher, fake=noise(3)[rows]),
        }
        return view_sums({"ca": CA, "dm": DM}, seen)

    whole, first, rest = sums(slice(None)), sums(slice(2)), sums(slice(2, None))
    together = view_figures({name: first[name] + rest[name] for name in whole})
    for name, value in view_figures(whole).items():
        assert together[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
