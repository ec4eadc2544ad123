"""How rows are measured, at which guidance, and how shipped rows are compared with recomputed ones."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fewstep.demo.protocol import METRICS, Row
from fewstep.demo.shipped_rows import NAMES, MeasuredRow, ShippedRows, read_rows
from fewstep.embedded import assets
from fewstep.embedded.digits.prompts import NUM_DIGITS
from fewstep.embedded.digits.task import Digits
from fewstep.errors import CheckpointError
from fewstep.sampling.model_spec import ModelSpec
from tests.demo.small import SMALL
from tools.embedded_teacher import verify
from tools.embedded_teacher.pictures import BaseDigits, draw_prompted
from tools.embedded_teacher.rows import best_guidance, measure_real, measure_teacher, real_diversity, write_rows
from tools.embedded_teacher.verify import compare


def row(value: float = 0.5, *, guidance: float | None = 2.0) -> Row:
    return Row(**dict.fromkeys(METRICS, value), guidance=guidance, n=1400)


@pytest.fixture
def shipped() -> ShippedRows:
    measured = MeasuredRow(row(), (row(0.4), row(0.5), row(0.6)), {1.0: 3.0, 2.0: 0.5})
    return ShippedRows(10.0, dict.fromkeys(NAMES, measured))


def with_change(shipped: ShippedRows, name: str, **figures: float) -> ShippedRows:
    measured = shipped.rows[name]
    changed = dataclasses.replace(measured, row=dataclasses.replace(measured.row, **figures))
    return dataclasses.replace(shipped, rows={**shipped.rows, name: changed})


def test_the_best_guidance_has_the_smallest_distance() -> None:
    assert best_guidance({1.0: 3.0, 1.5: 2.0, 2.0: 1.5, 3.0: 4.0}) == 2.0


def test_of_two_equal_guidances_the_smaller_is_chosen() -> None:
    assert best_guidance({3.0: 1.0, 1.5: 1.0}) == 1.5


def test_the_teacher_is_measured_at_the_guidance_chosen_on_the_first_noise_seed(tmp_path: Path) -> None:
    protocol = dataclasses.replace(SMALL, noise_seeds=(1000, 1001))
    teacher = ModelSpec(model="fewstep:digits", sigmas=(1.0,))
    measured = measure_teacher(protocol, teacher, tmp_path, guidances=(1.0, 8.0))
    assert set(measured.fd_by_guidance) == {1.0, 8.0}
    best = best_guidance(measured.fd_by_guidance)
    assert [row.guidance for row in (measured.row, *measured.per_noise_seed)] == [best] * 3
    assert measured.per_noise_seed[0].fd == measured.fd_by_guidance[best]
    assert measured.per_noise_seed[1].fd != measured.per_noise_seed[0].fd


def test_rows_survive_their_file(shipped: ShippedRows, tmp_path: Path) -> None:
    write_rows(shipped, tmp_path / assets.ROWS_FILE)
    assets.write_manifest(tmp_path)
    with assets.in_place_of_shipped(assets.DIGITS, tmp_path):
        assert read_rows() == shipped


def test_a_rows_file_without_a_row_is_named(shipped: ShippedRows, tmp_path: Path) -> None:
    fewer = {name: measured for name, measured in shipped.rows.items() if name != "teacher_4"}
    write_rows(dataclasses.replace(shipped, rows=fewer), tmp_path / assets.ROWS_FILE)
    assets.write_manifest(tmp_path)
    with (
        assets.in_place_of_shipped(assets.DIGITS, tmp_path),
        pytest.raises(CheckpointError, match=r"rows\.json lacks the row teacher_4\. Install fewstep again"),
    ):
        read_rows()


def test_equal_rows_have_no_difference(shipped: ShippedRows) -> None:
    assert compare(shipped, shipped) == []


def test_a_figure_beyond_rounding_is_named_with_both_values(shipped: ShippedRows) -> None:
    differences = compare(shipped, with_change(shipped, "teacher_50", fd=0.6))
    assert [str(difference) for difference in differences] == [
        "teacher_50.fd is 0.6 now and 0.5 in the package, which differs by more than 0.01"
    ]


def test_a_figure_within_rounding_is_no_difference(shipped: ShippedRows) -> None:
    assert compare(shipped, with_change(shipped, "teacher_4", fd=0.505, accuracy=0.5007)) == []


def test_a_figure_that_is_not_a_number_is_a_difference(shipped: ShippedRows) -> None:
    assert [d.figure for d in compare(shipped, with_change(shipped, "real", kd=float("nan")))] == ["kd"]


def test_another_guidance_is_a_difference(shipped: ShippedRows) -> None:
    assert [d.figure for d in compare(shipped, with_change(shipped, "teacher_4", guidance=1.5))] == ["guidance"]


def test_another_distance_at_a_guidance_that_was_not_chosen_is_a_difference(shipped: ShippedRows) -> None:
    measured = dataclasses.replace(shipped.rows["teacher_50"], fd_by_guidance={1.0: 4.0, 2.0: 0.5})
    found = dataclasses.replace(shipped, rows={**shipped.rows, "teacher_50": measured})
    assert [d.figure for d in compare(shipped, found)] == ["fd at guidance 1"]


def rebuilt(monkeypatch: pytest.MonkeyPatch, shipped: ShippedRows, found: ShippedRows) -> list[str]:
    monkeypatch.setattr(
        verify, "read_rows", lambda: shipped if assets.assets_folder(assets.DIGITS) != Path("rebuilt") else found
    )
    return [str(difference) for difference in verify.compare_rebuilt(Path("rebuilt"), notify=lambda line: None)]


def test_another_training_within_its_tolerance_is_no_difference(
    shipped: ShippedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = with_change(shipped, "teacher_50", fd=0.65, accuracy=0.508, guidance=3.0)
    assert compare(shipped, found) != []
    assert rebuilt(monkeypatch, shipped, found) == []


def test_a_rebuilt_teacher_that_is_worse_is_told_by_its_figure(
    shipped: ShippedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rebuilt(monkeypatch, shipped, with_change(shipped, "teacher_50", accuracy=0.48)) == [
        "teacher_50.accuracy is 0.48 now and 0.5 in the package, which differs by more than 0.01"
    ]


def test_every_figure_of_a_rebuilt_teacher_is_shown_beside_the_shipped_one(
    shipped: ShippedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "read_rows", lambda: shipped)
    lines: list[str] = []
    verify.compare_rebuilt(Path("rebuilt"), notify=lines.append)
    assert len(lines) == len(NAMES) * len(METRICS)
    assert "real.accuracy: shipped 0.5, rebuilt 0.5, may differ by 0.01" in lines


@pytest.fixture
def held_out() -> BaseDigits:
    generator = torch.Generator().manual_seed(3)
    return BaseDigits(torch.rand(40, 8, 8, generator=generator), torch.arange(40) % NUM_DIGITS)


def test_real_pictures_have_the_diversity_of_real_pictures(held_out: BaseDigits) -> None:
    protocol = dataclasses.replace(SMALL, noise_seeds=(1000, 1001))
    protocol = dataclasses.replace(protocol, real_diversity=real_diversity(protocol, held_out))
    measured = measure_real(protocol, held_out)
    assert measured.row.diversity == pytest.approx(1.0)
    assert len({row.fd for row in measured.per_noise_seed}) == 2


def test_files_in_place_of_the_shipped_ones_are_what_is_measured_against(held_out: BaseDigits, tmp_path: Path) -> None:
    asked = [(kind // 7, kind % 7) for kind in range(70) for _ in range(SMALL.full.copies)]
    pixels = draw_prompted(held_out, asked, seed=SMALL.noise_seeds[0]).pixels
    features = Digits().load_judge().predict(pixels).features
    made = tmp_path / "assets"
    made.mkdir()
    shutil.copy(assets.check_files(assets.DIGITS, under=Digits.judge_file), made)
    save_file({"features": features}, made / assets.REFERENCE_FILE)
    assets.write_manifest(made)
    with assets.in_place_of_shipped(assets.DIGITS, made):
        row = measure_real(SMALL, held_out).row
    # the reference is made of these very pictures
    assert row.fd == pytest.approx(0.0, abs=1e-6)
    assert (row.precision, row.recall, row.coverage) == (1.0, 1.0, 1.0)
    assert measure_real(SMALL, held_out).row.fd > 1
