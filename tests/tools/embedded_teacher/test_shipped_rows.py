"""The rows in the package: they are of this teacher and this reference, and the teacher is worth distilling."""

from pathlib import Path

import pytest
import torch

from fewstep.demo.protocol import NOISE_SEEDS, Protocol
from fewstep.demo.shipped_rows import load_teacher, read_rows, student_sigmas
from fewstep.embedded.digits.task import Digits
from fewstep.sampling.model_spec import ModelSpec
from fewstep.sampling.sampler import teacher_sigmas
from tools.embedded_teacher.pictures import load_held_out
from tools.embedded_teacher.rows import GUIDANCES, best_guidance, measure_real, real_diversity
from tools.embedded_teacher.verify import compare_rows


def test_the_teacher_at_50_steps_is_close_enough_to_real_data_to_be_distilled() -> None:
    rows = read_rows().rows
    assert rows["teacher_50"].row.fd <= 2.2 * rows["real"].row.fd
    assert rows["teacher_50"].row.accuracy >= 0.99


@pytest.mark.parametrize("name", ["teacher_50", "teacher_4"])
def test_the_teacher_is_shown_at_the_guidance_with_its_best_distance(name: str) -> None:
    measured = read_rows().rows[name]
    assert tuple(measured.fd_by_guidance) == GUIDANCES
    assert measured.row.guidance == best_guidance(measured.fd_by_guidance)


@pytest.mark.parametrize("name", ["real", "teacher_50", "teacher_4"])
def test_a_row_is_the_mean_of_1400_pictures_at_three_noise_seeds(name: str) -> None:
    measured = read_rows().rows[name]
    assert [row.n for row in measured.per_noise_seed] == [1400] * len(NOISE_SEEDS)
    assert measured.row.fd == pytest.approx(sum(row.fd for row in measured.per_noise_seed) / 3)


def test_the_reference_holds_the_full_prompts_in_turn() -> None:
    # the kernel distance by prompts relies on this order
    classifier, features = Digits().load_judge(), Digits().load_reference()
    with torch.no_grad():
        kinds = classifier.digit_head(features).argmax(-1) * 7 + classifier.colour_head(features).argmax(-1)
    assert (kinds == torch.arange(1400) % 70).double().mean() > 0.98


def test_the_row_of_real_data_is_reproduced_from_the_held_out_digits() -> None:
    shipped = read_rows()
    diversity = real_diversity(Protocol(1.0), load_held_out())
    row = measure_real(Protocol(diversity, noise_seeds=NOISE_SEEDS[:1]), load_held_out()).row
    assert diversity == pytest.approx(shipped.real_diversity, rel=0.01)
    assert list(compare_rows("real", shipped.rows["real"].per_noise_seed[0], row)) == []


def test_real_data_is_nearer_to_the_reference_than_any_model() -> None:
    rows = {name: measured.row for name, measured in read_rows().rows.items()}
    # the reference has other base digits, so the distance is small and not zero
    assert rows["real"].fd < rows["teacher_50"].fd < rows["teacher_4"].fd
    assert abs(rows["real"].kd) < 0.5 * min(rows["teacher_50"].kd, rows["teacher_4"].kd)


def test_teacher_and_student_have_the_same_few_steps() -> None:
    assert len(student_sigmas(load_teacher().adapter)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("steps", [50, 4])
def test_a_shipped_row_of_the_teacher_is_reproduced_on_its_first_noise_seed(steps: int, tmp_path: Path) -> None:
    """The other noise seeds and guidance scales go the same way; `make verify` draws them too."""
    name, adapter = f"teacher_{steps}", load_teacher().adapter
    sigmas = student_sigmas(adapter) if steps == 4 else teacher_sigmas(adapter, steps)
    shipped = read_rows()
    known = shipped.rows[name]
    teacher = ModelSpec(model="fewstep:digits", sigmas=tuple(sigmas.tolist()), guidance_scale=known.row.guidance)
    (row,) = Protocol(shipped.real_diversity, noise_seeds=NOISE_SEEDS[:1]).measure(teacher, tmp_path)
    assert list(compare_rows(name, known.per_noise_seed[0], row)) == []
