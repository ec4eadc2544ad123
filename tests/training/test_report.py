from pathlib import Path

import pytest

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

    def killed(path: Path, text: str) -> int:
        path.open("w").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_metrics_from(metrics, 2)
    assert metrics.read_text().splitlines() == LINES
