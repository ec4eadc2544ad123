"""The demo end to end with the embedded teacher: a distillation of two updates, measured on few pictures."""

import base64
import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.demo import present
from fewstep.demo.protocol import METRICS, Protocol, Row
from fewstep.demo.result import DemoResult, SeedResult
from fewstep.demo.run import run_demo
from fewstep.demo.shipped_rows import read_rows
from fewstep.errors import ConfigError
from fewstep.sampling import sample
from fewstep.sampling.model_spec import ModelSpec
from tests.demo.small import SMALL

SHORT = ("batch=4", "schedule.max_steps=3", "report.sheet_every=null", "checkpoint.every=null")


@dataclass(frozen=True)
class Finished:
    """A demo that ran: what it returned, what it printed, where it is."""

    result: DemoResult
    printed: str
    told: str
    output: Path

    @property
    def student(self) -> Path:
        return self.output / self.result.students[0].run / "student"


def run(output: Path, *, protocol: Protocol = SMALL, updates: int = 2, seeds: tuple[int, ...] = (0,)) -> Finished:
    printed, told = io.StringIO(), io.StringIO()
    overrides = [*SHORT, f"budget.student_updates={updates}"]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(told),
    ):
        # the teacher's sheets at fifty steps are three quarters of such a demo; that of the slow tier draws them
        patch.setattr(present, "TEACHER_STEPS", 5)
        result = run_demo(output=output, as_json=True, overrides=overrides, protocol=protocol, seeds=seeds)
    return Finished(result, printed.getvalue(), told.getvalue(), output)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(tmp_path_factory.mktemp("demo") / "runs" / "demo")


@pytest.fixture(scope="module")
def second(first: Finished) -> Finished:
    return run(first.output)


def test_the_last_line_is_one_json_object_with_every_field(first: Finished) -> None:
    printed = json.loads(first.printed.splitlines()[-1])
    rows = {"real", "teacher_50", "teacher_4", "student_4"}
    facts = {"seeds", "threads", "train_seconds", "total_seconds", "peak_mib", "cached"}
    assert rows | facts <= printed.keys()
    assert all(set(printed[row]) == {*METRICS, "guidance", "n"} for row in rows)
    assert (printed["seeds"], printed["threads"], printed["cached"]) == ([0], 1, False)


def test_with_json_everything_for_people_goes_to_standard_error(first: Finished) -> None:
    assert len(first.printed.splitlines()) == 1
    assert "colour TV" in first.told
    assert str(first.output / "report.html") in first.told


def test_the_shipped_rows_are_reported_as_they_ship(first: Finished) -> None:
    assert first.result.shipped == {name: measured.row for name, measured in read_rows().rows.items()}


def test_times_and_memory_are_those_of_this_process(first: Finished) -> None:
    assert 0 < first.result.students[0].train_seconds < first.result.total_seconds
    # PyTorch alone takes about 200 MiB; the issue allows 3 GiB
    assert 200 < first.result.peak_mib < 3072


def test_the_students_row_is_what_evaluating_the_exported_folder_gives(first: Finished, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(first.result.threads)  # bits are those of one number of threads
    try:
        (row,) = SMALL.measure(ModelSpec(model=str(first.student), steps=4, guidance_scale=1.0), tmp_path)
    finally:
        torch.set_num_threads(before)
    assert row == first.result.students[0].row
    assert not (first.student.parent / "measured").exists()


def test_the_report_shows_the_pictures_that_sample_draws(first: Finished) -> None:
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', (first.output / "report.html").read_text())
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[2]))))
    drawn = np.asarray(sample(first.student, "a blue handwritten one", steps=4, seed=0)[0])
    # a batch of another size rounds differently, which moves a pixel by one byte at most
    assert np.abs(sheet[32:64, 64:96].astype(int) - drawn).max() <= 1


def test_the_one_picture_is_written_beside_the_report(first: Finished) -> None:
    assert Image.open(first.output / "picture.png").size[0] > 3 * 7 * 32 * 2


def test_a_second_demo_says_that_it_was_done_before(second: Finished) -> None:
    assert second.result.cached
    assert "From an earlier demo" in second.told


def test_a_second_demo_reports_what_the_first_measured(first: Finished, second: Finished) -> None:
    assert second.result.rows == first.result.rows
    assert second.result.students[0].train_seconds == first.result.students[0].train_seconds


def test_a_second_demo_is_quick(second: Finished) -> None:
    # it reads a few small files; a second run that trained or drew would take many times as long
    assert second.result.total_seconds < 2


def test_a_demo_shorter_than_the_run_it_finds_is_refused(second: Finished) -> None:
    with pytest.raises(ConfigError, match=r"was trained for 4 steps, more than the 2 of this demo.*--output"):
        run(second.output, updates=1)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(ConfigError, match=r"demo cannot be written"):
        run(tmp_path / "demo")


def test_the_callers_thread_count_is_given_back(first: Finished) -> None:
    torch.set_num_threads(2)
    try:
        assert run(first.output).result.threads == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def seed_result(seed: int, fd: float) -> SeedResult:
    row = Row(**dict.fromkeys(METRICS, fd), guidance=1.0, n=1400)
    return SeedResult(f"key{seed}", seed, f"digits-{seed}", 10.0 + seed, row)


def test_several_training_seeds_are_averaged_and_listed() -> None:
    shipped = {"real": Row(**dict.fromkeys(METRICS, 0.25), guidance=None, n=1400)}
    result = DemoResult(shipped, [seed_result(0, 1.0), seed_result(3, 2.0)], 1, 50.0, 300.0, False).to_json()
    assert result["student_4"]["fd"] == 1.5
    assert [(entry["seed"], entry["fd"]) for entry in result["student_4_per_seed"]] == [(0, 1.0), (3, 2.0)]
    assert (result["seeds"], result["train_seconds"]) == ([0, 3], 23.0)


def test_a_stored_result_survives_its_file(tmp_path: Path) -> None:
    seed_result(0, 1.0).write(tmp_path / "demo.json")
    assert SeedResult.read(tmp_path / "demo.json", key="key0") == seed_result(0, 1.0)


def test_a_stored_result_of_something_else_is_not_used(tmp_path: Path) -> None:
    seed_result(0, 1.0).write(tmp_path / "demo.json")
    assert SeedResult.read(tmp_path / "demo.json", key="key1") is None


@pytest.mark.parametrize("text", ["", '{"key": "key0", "se', "[1]"])
def test_a_stored_result_that_was_cut_off_is_made_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    assert SeedResult.read(tmp_path / "demo.json", key="key0") is None
