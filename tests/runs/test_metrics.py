"""metrics.jsonl as numbers."""

import os
from pathlib import Path

import pytest

from fewstep.errors import CheckpointError
from fewstep.files import UnreadableError
from fewstep.runs.metrics import END_BYTES, Line, all_lines, last_figures, last_lines


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_the_last_lines_are_whole_whatever_is_before_and_behind_them(metrics: Path) -> None:
    whole = [f'{{"step": {step}, "loss/ca": {step}.5}}\n' for step in range(1000)]
    metrics.write_text("".join(whole) + '{"step": 1000, "lo')
    found = last_lines(metrics)
    assert found[-1] == Line(999, {"loss/ca": 999.5})
    assert [line.step for line in found] == list(range(found[0].step, 1000))
    assert END_BYTES - 80 < sum(len(whole[line.step]) for line in found) <= END_BYTES


@pytest.mark.parametrize("text", ["", '{"step": 0', "\n"])
def test_a_file_without_a_whole_line_has_none(text: str, metrics: Path) -> None:
    metrics.write_text(text)
    assert last_lines(metrics) == []
    assert list(all_lines(metrics)) == []


def test_no_file_has_no_lines(metrics: Path) -> None:
    assert last_lines(metrics) == []
    assert list(all_lines(metrics)) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [("\0\0", "not valid JSON"), ("[]", "the whole is"), ('{"loss/ca": 1}', "names no step"), ('{"step": -1}', "step")],
)
def test_a_damaged_line_is_told(line: str, reason: str, metrics: Path) -> None:
    metrics.write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(UnreadableError, match=reason):
        last_lines(metrics)
    with pytest.raises(CheckpointError, match=rf"its line 2 is damaged: .*{reason}"):
        list(all_lines(metrics))


def test_one_line_that_is_longer_than_what_is_read_is_told(metrics: Path) -> None:
    metrics.write_text('{"step": 0}\n' + "x" * 2 * END_BYTES)
    with pytest.raises(UnreadableError, match="hold no whole line"):
        last_lines(metrics)


def test_a_pipe_is_told_and_not_waited_for(metrics: Path) -> None:
    os.mkfifo(metrics)
    with pytest.raises(UnreadableError, match="not a file"):
        last_lines(metrics)
    with pytest.raises(CheckpointError, match="it is not a file"):
        list(all_lines(metrics))


def test_the_last_figure_of_each_name_counts_and_only_numbers_are_figures(metrics: Path) -> None:
    lines = ['{"step": 0, "a": 1, "b": 2.5, "c": "x", "d": true}', '{"step": 1, "a": NaN}', '{"step": 1, "a": 3}']
    metrics.write_text("".join(f"{one}\n" for one in lines))
    assert last_figures(all_lines(metrics)) == {"a": 3.0, "b": 2.5}


def test_a_hole_is_told_and_takes_no_memory(metrics: Path) -> None:
    metrics.write_text('{"step": 0}\n')
    with metrics.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match=r"its line 2 has more than \d+ bytes"):
        list(all_lines(metrics))


@pytest.mark.parametrize("line", [f'{{"step": 0, "loss/ca": {"9" * 400}}}', f'{{"step": {"9" * 400}}}'])
def test_a_number_that_no_float_holds_is_damage(line: str, metrics: Path) -> None:
    metrics.write_text(f"{line}\n")
    with pytest.raises(UnreadableError, match="a whole number of 1329 bits"):
        last_lines(metrics)
    with pytest.raises(CheckpointError, match=r"its line 1 is damaged: .* a whole number of 1329 bits"):
        list(all_lines(metrics))
