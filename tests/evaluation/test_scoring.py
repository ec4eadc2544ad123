"""The score phase: one metric at a time, resumable, and never a zero for a picture that cannot be scored."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from fewstep.errors import CheckpointError, ConfigError
from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.scoring import Scored, score
from fewstep.scores.metric import Finding, Metric, MetricError, MetricSettings
from tests.evaluation.pictures import Brightness, Darkness, Spread, paint, task_of

TASK = task_of("a", "b", "c", seeds=(0, 1))
GREYS = {"student": lambda prompt, seed: 10 * prompt + seed, "teacher": lambda prompt, seed: 100 + prompt}


@pytest.fixture
def painted(tmp_path: Path) -> tuple[EvaluationFolder, list[ModelRecord]]:
    Brightness.loaded_now.clear()
    Brightness.most_loaded = 0
    return paint(tmp_path / "eval", TASK, GREYS)


def run(painted: tuple[EvaluationFolder, list[ModelRecord]], *metrics: Metric, task: Task = TASK) -> list[Scored]:
    folder, records = painted
    return score(folder, task, records, metrics, ranks=Ranks(), console=Console(quiet=True), device="cpu")


def test_every_picture_gets_its_own_score(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    student, teacher = run(painted, Brightness())
    assert [finding.score for finding in student.findings] == [0, 1, 10, 11, 20, 21]
    assert dict(student.figures) == {"brightness": 10.5}
    assert dict(teacher.figures) == {"brightness": 101}


def test_a_set_metric_sees_all_pictures(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    student, teacher = run(painted, Spread())
    # the standard deviation of 0, 1, 10, 11, 20, 21 and of 100, 100, 101, 101, 102, 102
    assert student.figures["spread"] == pytest.approx((400 / 6 + 0.25) ** 0.5)
    assert teacher.figures["spread"] == pytest.approx((4 / 6) ** 0.5)


def test_one_metric_is_in_memory_at_a_time(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    run(painted, Brightness(), Darkness(), Spread())
    assert Brightness.most_loaded == 1
    assert Brightness.loaded_now == []


def test_what_is_scored_is_not_scored_again(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    first = run(painted, Brightness())
    again = Brightness()
    assert [one.figures for one in run(painted, again)] == [one.figures for one in first]
    assert again.asked == []


def test_a_picture_that_fails_is_named_and_the_others_are_kept(
    painted: tuple[EvaluationFolder, list[ModelRecord]],
) -> None:
    torn = Brightness(MetricSettings(batch=1), unreadable="00001.seed1.steps4.png")
    with pytest.raises(MetricError, match=r"brightness cannot read .*00001.seed1.steps4.png: it is torn"):
        run(painted, torn)
    assert Brightness.loaded_now == []
    healed = Brightness(MetricSettings(batch=1))
    run(painted, healed)
    assert len(torn.asked) == 3
    assert len(healed.asked) == 12 - 3


def test_a_score_that_is_no_number_is_refused(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    class Broken(Brightness):
        def look(self, pictures, images):  # type: ignore[no-untyped-def]
            return [Finding(float("nan")) for _ in pictures]

    with pytest.raises(MetricError, match=r"score .*00000.seed0.steps4.png \(prompt 00000, seed 0\): its score is nan"):
        run(painted, Broken())


def test_a_picture_that_changed_is_scored_again(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    folder, records = painted
    run(painted, Brightness())
    changed = folder.pictures(TASK, records[0])[0].path
    Image.effect_noise((8, 8), 50).convert("RGB").save(changed)
    again = Brightness()
    run(painted, again)
    assert again.asked == ["student/00000.seed0.steps4.png"]


def test_other_settings_never_meet_old_scores(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    run(painted, Brightness())
    other = Brightness(MetricSettings(batch=2, source="somewhere/else"))
    run(painted, other)
    assert len(other.asked) == 12


def test_a_line_that_a_kill_cut_short_is_made_again(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    folder, _ = painted
    before = run(painted, Brightness())
    (lines,) = (folder.model_folder("student") / "scores").glob("brightness-*/part-0.jsonl")
    lines.write_text(lines.read_text()[:-20])
    again = Brightness()
    after = run(painted, again)
    assert again.asked == ["student/00002.seed1.steps4.png"]
    assert [one.figures for one in after] == [one.figures for one in before]
    assert all(json.loads(line) for line in lines.read_text().splitlines())


def test_damaged_scores_are_named(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    folder, _ = painted
    run(painted, Brightness())
    (lines,) = (folder.model_folder("student") / "scores").glob("brightness-*/part-0.jsonl")
    lines.write_text("{]\n" + lines.read_text())
    with pytest.raises(CheckpointError, match=r"part-0.jsonl is damaged .*; delete it, and its scores are made again"):
        run(painted, Brightness())


@pytest.mark.parametrize(
    "line", ["[]", "null", "{}", "[" * 100_000, '{"picture": 3}', '{"picture": "x", "score": NaN, "details": {}}', "\0"]
)
def test_a_line_of_scores_of_another_shape_is_named(
    line: str, painted: tuple[EvaluationFolder, list[ModelRecord]]
) -> None:
    folder, _ = painted
    run(painted, Brightness())
    (lines,) = (folder.model_folder("student") / "scores").glob("brightness-*/part-0.jsonl")
    lines.write_text(f"{line}\n{lines.read_text()}")
    with pytest.raises(CheckpointError, match=r"part-0.jsonl is damaged .*; delete it, and its scores are made again"):
        run(painted, Brightness())


@pytest.mark.parametrize("metric", [Brightness, Spread])
def test_a_picture_of_the_same_size_with_other_pixels_is_scored_again(
    metric: Any, painted: tuple[EvaluationFolder, list[ModelRecord]]
) -> None:
    folder, records = painted
    scored = run(painted, metric())
    _, _, path, *others = [picture.path for picture in folder.pictures(TASK, records[0])]
    before = path.stat()
    others = [other for other in others if other.stat().st_size == before.st_size]
    path.write_bytes(next(other.read_bytes() for other in others if other.read_bytes() != path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = run(painted, metric())
    assert again[0].figures != scored[0].figures
    assert again[1].figures == scored[1].figures


def test_a_link_in_place_of_a_picture_is_refused(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    folder, records = painted
    path = folder.pictures(TASK, records[0])[0].path
    path.symlink_to(path.rename(folder.path / "elsewhere.png"))
    with pytest.raises(CheckpointError, match=rf"The picture .*{path.name} is a symbolic link.*put the picture itself"):
        run(painted, Brightness())


def test_a_pipe_in_place_of_features_is_not_waited_for(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    folder, _ = painted
    run(painted, Spread())
    part = next((folder.model_folder("student") / "scores").glob("spread-*/*.safetensors"))
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(CheckpointError, match=r"\.safetensors is damaged \(it is not a file\); delete it"):
        run(painted, Spread())


def test_damaged_features_are_named(painted: tuple[EvaluationFolder, list[ModelRecord]]) -> None:
    folder, _ = painted
    run(painted, Spread())
    part = next((folder.model_folder("student") / "scores").glob("spread-*/*.safetensors"))
    part.write_bytes(part.read_bytes()[:10])
    with pytest.raises(CheckpointError, match=r"\.safetensors is damaged .*; delete it, and it is made again"):
        run(painted, Spread())


def test_a_missing_picture_is_told_before_any_is_scored(
    painted: tuple[EvaluationFolder, list[ModelRecord]],
) -> None:
    folder, records = painted
    folder.pictures(TASK, records[1])[2].path.unlink()
    metric = Brightness()
    with pytest.raises(ConfigError, match=r"1 of 6 pictures of teacher are missing, the first is .*00001.seed0"):
        run(painted, metric)
    assert metric.asked == []


def test_several_ranks_share_the_pictures_and_read_each_others_scores(
    painted: tuple[EvaluationFolder, list[ModelRecord]],
) -> None:
    shares = [Ranks(rank, 3).share(list(range(10))) for rank in range(3)]
    assert sorted(unit for share in shares for unit in share) == list(range(10))
    folder, _ = painted
    run(painted, Brightness())
    (lines,) = (folder.model_folder("student") / "scores").glob("brightness-*/part-0.jsonl")
    rows = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(rows[:3]))
    lines.with_name("part-1.jsonl").write_text("".join(rows[3:]))
    again = Brightness()
    assert run(painted, again)[0].figures == {"brightness": 10.5}
    assert again.asked == []
