"""CDM as a whole on a ring of Gaussians: a sign, a dropped sigma or an untrained fake score shows in the samples."""

from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from examples import mixture_2d
from examples.mixture_2d import Quality, distil, energy_distance, quality, real, start, teacher
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent


@cache
def distilled() -> Quality:
    *_, last = distil(start(), updates=300)
    return quality(last.student)


def test_four_steps_of_the_student_are_right_where_four_of_its_start_are_not() -> None:
    assert quality(start()).right < 0.85
    assert distilled().right > 0.90


def test_the_student_covers_every_mode_evenly() -> None:
    assert distilled().modes == 8
    assert distilled().variation < 0.08


def test_the_students_energy_distance_is_smaller_than_that_of_its_start() -> None:
    # 300 updates measured .6 times, 600 .4 times
    assert distilled().energy < 0.8 * quality(start()).energy


def test_a_teacher_of_the_wrong_sign_ruins_the_student() -> None:
    def flipped(point: NoisyLatent, cond: Conditioning) -> Tensor:
        return -teacher(point, cond)

    *_, last = distil(start(), updates=60, of_teacher=flipped)
    assert quality(last.student).right < 0.3


def test_fifty_steps_of_the_exact_velocity_give_the_data() -> None:
    found = quality(teacher, levels=tuple(1 - k / 50 for k in range(50)))
    assert found.right > 0.99
    assert abs(found.energy) < 0.005


def test_the_energy_distance_is_zero_between_samples_of_one_distribution_and_grows_with_a_shift() -> None:
    draws = [real(torch.full((4000,), 2), torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert abs(energy_distance(*draws)) < 0.01
    near, far = (energy_distance(draws[0], draws[1] + shift) for shift in (0.5, 1.0))
    assert 0.05 < near < far


def test_the_command_draws_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mixture_2d", "--updates", "2", "--output", str(tmp_path / "ring.gif")])
    mixture_2d.main()
    assert "student, 4 steps" in capsys.readouterr().out
    with Image.open(tmp_path / "ring.gif") as picture:
        assert picture.n_frames == 3  # before the first update and after each
