import os
from pathlib import Path

import pytest

from fewstep.errors import CheckpointError
from fewstep.training.report import drop_metrics_from

LINES = ['{"step": 0}', '{"step": 1}', '{"step": 1, "evaluation/digits": 0.5}', '{"step": 2}']


def test_lines_that_a_resume_writes_again_and_a_line_cut_off_are_dropped(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("\n".join([*LINES, '{"ste']))
    drop_metrics_from(metrics, 2)
    assert metrics.read_text().splitlines() == LINES[:3]
    assert list(tmp_path.iterdir()) == [metrics]


def test_a_kill_while_they_are_dropped_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("\n".join(LINES))

    def killed(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_metrics_from(metrics, 2)
    assert metrics.read_text().splitlines() == LINES


@pytest.mark.parametrize(
    "line", ["[]", "null", "{}", '{"step": "1"}', '{"step": -1}', "[" * 100_000, "\0\0\0", "step 1"]
)
def test_a_damaged_line_is_dropped_at_the_end_and_told_elsewhere(line: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("\n".join([*LINES, line]))
    drop_metrics_from(metrics, 9)
    assert metrics.read_text().splitlines() == LINES
    metrics.write_text("\n".join([LINES[0], line, *LINES[1:]]))
    with pytest.raises(
        CheckpointError,
        match=r"metrics.jsonl cannot be used: its line 2 is damaged: .*Remove that line, or move",
    ):
        drop_metrics_from(metrics, 9)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 0, "x": "\xff"}\n{"step": 1}\n')
    with pytest.raises(CheckpointError, match="its line 1 is damaged: it is not valid JSON"):
        drop_metrics_from(metrics, 2)


def test_a_pipe_in_its_place_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl cannot be used: it is not a file"):
        drop_metrics_from(tmp_path / "metrics.jsonl", 0)
