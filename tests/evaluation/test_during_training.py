"""Metrics while a student trains: when they run, what they log, and which student is the best."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fewstep.config.run_config import EvaluationConfig
from fewstep.embedded.digits.prompts import full_prompts
from fewstep.errors import CheckpointError, ConfigError
from fewstep.evaluation.during_training import Measurement, TrainingEvaluation
from fewstep.scores.registry import create_metrics
from tests.evaluation.pictures import Brightness, Darkness, Spread

CPU = torch.device("cpu")
PROMPTS = ["a red handwritten one", "a blue handwritten one"]


def evaluation(folder: Path, *metrics: Any, **choices: Any) -> TrainingEvaluation:
    """Of the tests' own metrics, which stand in no registry."""
    config = EvaluationConfig(**{"every": 10, "metrics": ("digits",), "num_prompts": 2, **choices})
    made = TrainingEvaluation(config, [*PROMPTS, "a handwritten two"], folder)
    made.metrics = tuple(metrics) or made.metrics
    return made


def greys(*values: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (value,) * 3) for value in values]


def measure(made: TrainingEvaluation, *values: int, update: int = 10) -> Measurement:
    return made.measure(greys(*values), update=update, device=CPU)


def test_it_asks_for_the_first_prompts_with_all_seeds(tmp_path: Path) -> None:
    made = evaluation(tmp_path, num_seeds=2)
    assert (made.texts, made.seeds) == ([PROMPTS[0]] * 2 + [PROMPTS[1]] * 2, [0, 1, 0, 1])


def test_figures_are_named_for_the_log(tmp_path: Path) -> None:
    found = measure(evaluation(tmp_path, Brightness(), Spread()), 10, 20)
    assert found.figures == {"evaluation/brightness": 15.0, "evaluation/spread": 5.0}


def test_no_metric_is_in_memory_afterwards(tmp_path: Path) -> None:
    Brightness.loaded_now.clear()
    Brightness.most_loaded = 0
    measure(evaluation(tmp_path, Brightness(), Darkness(), Spread()), 10, 20)
    assert Brightness.loaded_now == []
    assert Brightness.most_loaded == 1


def test_the_pictures_are_kept(tmp_path: Path) -> None:
    measure(evaluation(tmp_path, Brightness()), 10, 20, update=30)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert names == ["update-000030/00000.seed0.png", "update-000030/00001.seed0.png"]


def test_the_best_student_is_the_one_with_the_highest_score(tmp_path: Path) -> None:
    made = evaluation(tmp_path, Brightness(), keep_best="brightness")
    improved = [measure(made, grey, grey, update=update).improved for update, grey in ((10, 5), (20, 9), (30, 7))]
    assert improved == [True, True, False]
    assert json.loads((tmp_path / "best.json").read_text()) == {"figure": "brightness", "value": 9.0, "update": 20}


def test_for_a_distance_the_best_is_the_lowest(tmp_path: Path) -> None:
    low = type(
        "Low",
        (Brightness,),
        {"card": Brightness.card.__class__(**{**vars(Brightness.card), "higher_is_better": False})},
    )
    made = evaluation(tmp_path, low(), keep_best="brightness")
    improved = [measure(made, grey, grey, update=update).improved for update, grey in ((10, 5), (20, 9), (30, 4))]
    assert improved == [True, False, True]


def test_a_resumed_run_remembers_its_best(tmp_path: Path) -> None:
    measure(evaluation(tmp_path, Brightness(), keep_best="brightness"), 100, 100)
    resumed = evaluation(tmp_path, Brightness(), keep_best="brightness")
    assert not measure(resumed, 50, 50, update=20).improved


def test_a_best_student_that_a_kill_lost_is_best_again_when_it_comes_back(tmp_path: Path) -> None:
    measure(evaluation(tmp_path, Brightness(), keep_best="brightness"), 9, 9, update=20)
    resumed = evaluation(tmp_path, Brightness(), keep_best="brightness")
    assert measure(resumed, 9, 9, update=20).improved


def test_without_keep_best_nothing_is_kept(tmp_path: Path) -> None:
    assert not measure(evaluation(tmp_path, Brightness()), 5, 5).improved
    assert not (tmp_path / "best.json").exists()


def test_a_figure_that_nothing_measures_lists_those_there_are(tmp_path: Path) -> None:
    made = evaluation(tmp_path, Brightness(), keep_best="fid")
    with pytest.raises(ConfigError, match=r"keep_best is 'fid', which no metric measures here; there are: brightness"):
        measure(made, 5, 5)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "{", "[" * 100_000, '{"figure": "brightness", "value": "5", "update": 1}']
)
def test_a_damaged_best_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"best.json is damaged .*; delete it, and the next measurement is best"):
        measure(evaluation(tmp_path, Brightness(), keep_best="brightness"), 5, 5)


def test_an_unknown_metric_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no metric 'digitz'; there are: imagereward"):
        evaluation(tmp_path, metrics=("digitz",))


def test_settings_without_their_metric_are_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluation.settings has the metric fid, which evaluation.metrics does not"):
        EvaluationConfig(every=1, metrics=("digits",), settings={"fid": {}})


def test_the_registered_metrics_measure_too(tmp_path: Path) -> None:
    config = EvaluationConfig(every=1, metrics=("digits",), num_prompts=2)
    made = TrainingEvaluation(config, full_prompts(), tmp_path)
    found = made.measure([Image.new("RGB", (32, 32))] * 2, update=1, device=CPU)
    assert found.figures["evaluation/digits"] == 0.0
    assert [metric.card.name for metric in create_metrics(("digits",))] == ["digits"]
