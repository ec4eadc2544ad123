"""A whole evaluation of tiny and embedded models, and everything that is refused before a picture is drawn."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import fewstep
from fewstep.errors import ConfigError
from fewstep.evaluation.folder import Extras
from fewstep.evaluation.session import Order, run_evaluation
from tests.evaluation.tiny_models import write_embedded_student, write_student, write_teacher

FEW = Extras(ladder=(1, 2), ladder_prompts=1, strip_seeds=2, strip_prompts=1)
TEACHER = "fewstep:digits,steps=4"
DIGITS = {name: {"extractor": "digits"} for name in ("fid", "kid", "prdc", "diversity", "vendi")}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_embedded_student(tmp_path_factory.mktemp("models") / "student"))


def evaluate(output: Path, **choices: Any) -> dict[str, Any] | None:
    choices = {"teacher": TEACHER, "extras": FEW, "num_prompts": 4, "device": "cpu", **choices}
    return run_evaluation(Order(output=output, **choices), console=Console(quiet=True))


def refused(output: Path, **choices: Any) -> str:
    """What an order is refused with; no picture may have been drawn by then."""
    with pytest.raises(ConfigError) as told:
        evaluate(output, **choices)
    assert list(output.rglob("*.png")) == []
    return str(told.value)


@pytest.fixture(scope="module")
def finished(student: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded student and teacher with every metric that needs nothing from outside."""
    output = tmp_path_factory.mktemp("finished")
    evaluate(output, models=(student,), seeds=(0, 1))
    return output


def test_every_offline_metric_measures_student_and_teacher(finished: Path) -> None:
    summary = json.loads((finished / "scores.json").read_text())
    figures = {(row["model"], row["figure"]) for row in summary["scores"]}
    expected = ("digits", "fid", "kid", "precision", "recall", "density", "coverage", "diversity", "vendi")
    assert {(model, figure) for model in ("student", "teacher") for figure in expected} <= figures
    teacher = {row["figure"]: row["value"] for row in summary["scores"] if row["model"] == "teacher"}
    # four steps of the real teacher: most digits and colours are what was asked for
    assert teacher["digits"] >= 0.75


def test_all_files_of_a_report_are_written(finished: Path) -> None:
    names = {"evaluation.json", "report.html", "scores.json", "scores.csv", "pictures.csv", "scores.md"}
    assert names <= {path.name for path in finished.iterdir()}


def test_the_ids_of_student_and_teacher_differ_in_steps_only(finished: Path) -> None:
    summary = json.loads((finished / "scores.json").read_text())
    ids = {row["model"]: row["protocol"] for row in summary["scores"] if row["metric"] == "digits"}
    student, teacher = (summary["protocols"][ids[model]] for model in ("student", "teacher"))
    assert {key for key in student if student[key] != teacher[key]} == {"guidance_scale"}
    assert (student["guidance_scale"], teacher["guidance_scale"]) == (1.0, 1.5)


def test_two_phases_are_the_same_as_both_at_once(student: str, tmp_path: Path) -> None:
    both = evaluate(tmp_path / "both", models=(student,), metrics=("digits",))
    evaluate(tmp_path / "apart", models=(student,), phase="generate")
    assert not (tmp_path / "apart" / "scores.json").exists()
    apart = evaluate(tmp_path / "apart", phase="score", metrics=("digits",), teacher=None)
    assert apart == both


def test_another_model_joins_the_table_of_its_folder(student: str, tmp_path: Path) -> None:
    evaluate(tmp_path, models=(student,), metrics=("digits",))
    summary = evaluate(tmp_path, models=(f"{student},name=second",), metrics=("digits",))
    assert summary is not None
    assert [model["name"] for model in summary["models"]] == ["second", "student", "teacher"]


def test_without_images_the_scores_stay(student: str, tmp_path: Path) -> None:
    evaluate(tmp_path, models=(student,), metrics=("digits",), save_images=False)
    assert list(tmp_path.rglob("*.png")) == []
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_teacher_is_found_without_being_named(student: str, tmp_path: Path) -> None:
    # the embedded teacher's own 50 steps, on one prompt and without the report's pictures
    none = Extras(ladder=(), ladder_prompts=0, strip_prompts=0)
    summary = evaluate(tmp_path, models=(student,), metrics=("digits",), teacher=None, num_prompts=1, extras=none)
    assert summary is not None
    assert [(m["name"], m["model"], m["sampling"]["steps"]) for m in summary["models"]][1] == (
        "teacher",
        "fewstep:digits",
        50,
    )


def test_models_of_other_steps_are_refused_before_anything_is_drawn(student: str, tmp_path: Path) -> None:
    said = refused(tmp_path, models=(student, f"{student},name=eight,steps=8"), metrics=("digits",))
    assert "student and of eight were measured under different protocols" in said
    assert "steps 4 and 8" in said
    assert said.endswith("--allow-different-protocols.")


def test_the_flag_compares_them_and_the_report_says_so(student: str, tmp_path: Path) -> None:
    models = (student, f"{student},name=eight,steps=8")
    summary = evaluate(tmp_path, models=models, metrics=("digits",), allow_different=True)
    assert summary is not None
    assert "steps 8 and 4" in summary["warnings"][0]
    assert '<p class="warning">digits of eight' in (tmp_path / "report.html").read_text()


def test_an_unknown_metric_lists_the_known_ones(student: str, tmp_path: Path) -> None:
    said = refused(tmp_path, models=(student,), metrics=("fidd",))
    assert said.startswith("There is no metric 'fidd'; there are: imagereward, clipscore, pickscore, hpsv2, hpsv3, ")


def test_a_setting_of_no_metric_is_refused(student: str, tmp_path: Path) -> None:
    said = refused(tmp_path, models=(student,), metrics=("digits",), settings={"fid": {"reference": "x"}})
    assert said == "There are settings for the metric fid, which is not asked for; add it to --metrics."


def test_an_unknown_setting_lists_the_known_ones(student: str, tmp_path: Path) -> None:
    said = refused(tmp_path, models=(student,), metrics=("digits",), settings={"digits": {"bach": 3}})
    assert said.startswith("The setting digits.bach is 3: Extra inputs are not permitted. The settings of digits are: ")


def test_diversity_of_one_picture_per_prompt_is_refused(student: str, tmp_path: Path) -> None:
    said = refused(tmp_path, models=(student,), metrics=("diversity",), settings={"diversity": DIGITS["diversity"]})
    assert said.startswith("diversity needs 2 pictures of every prompt, but there is 1 seed; give --seeds 2 or more")


def test_too_few_pictures_for_a_set_are_refused(student: str, tmp_path: Path) -> None:
    settings = {"prdc": DIGITS["prdc"]}
    said = refused(tmp_path, models=(student,), metrics=("prdc",), settings=settings, num_prompts=2, seeds=(0, 1))
    assert said == (
        "prdc needs 6 pictures, but 2 prompts with 2 of each make fewer; give more prompts or more --seeds, or leave "
        "the metric out."
    )


def test_a_set_that_bears_no_group_left_out_has_no_interval(student: str, tmp_path: Path) -> None:
    settings = {"prdc": DIGITS["prdc"]}
    summary = evaluate(tmp_path, models=(student,), metrics=("prdc",), settings=settings, num_prompts=3, seeds=(0, 1))
    assert summary is not None
    assert {row["interval"] for row in summary["scores"]} == {None}


def test_few_prompts_leave_out_the_default_metrics_that_need_more(student: str, tmp_path: Path) -> None:
    summary = evaluate(tmp_path, models=(student,), num_prompts=2, extras=Extras(ladder=(), strip_prompts=0))
    assert summary is not None
    assert {row["metric"] for row in summary["scores"]} == {"digits", "fid", "kid", "vendi"}


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("typo", "--device typo cannot be used here ("),
        ("cpu:0", "--device cpu:0 names one device; give its kind, cpu,"),
    ],
)
def test_a_device_that_cannot_be_used_is_told_before_anything_is_drawn(
    student: str, tmp_path: Path, device: str, message: str
) -> None:
    assert refused(tmp_path, models=(student,), metrics=("digits",), device=device).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_no_student_even_when_its_teacher_is_to_be_found(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    said = refused(tmp_path / "out", models=(str(tmp_path / "run"),), teacher=None)
    assert f"export its student first: fewstep export {tmp_path / 'run'} --output" in said


@pytest.mark.parametrize("metric", ["clipscore", "imagereward", "pickscore", "hpsv2", "hpsv3", "aesthetic"])
def test_a_missing_checkpoint_is_told_before_anything_is_drawn(student: str, tmp_path: Path, metric: str) -> None:
    said = refused(tmp_path, models=(student,), metrics=("digits", metric))
    assert metric in said
    assert "hf download" in said or "fewstep evaluate convert" in said


def test_students_of_the_embedded_teacher_are_drawn_its_own_prompts(finished: Path) -> None:
    assert json.loads((finished / "scores.json").read_text())["prompts"]["name"] == "digits"


def test_as_small_a_model_of_another_teacher_is_no_student_of_the_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise ConfigError("not here")

    monkeypatch.setattr("fewstep.evaluation.session.load_prompt_set", refuse)
    teacher = write_teacher(tmp_path / "t")
    small = {"models": (f"{write_student(teacher, tmp_path / 's')},height=32,width=32",)}
    refused(tmp_path / "out", **small, teacher=f"{teacher},height=32,width=32")
    assert asked == ["drawbench"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be a whole number from 1 to 1000."),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; it must be a number from 0 to"),
        ({"seeds": (-1,)}, "seed is -1; it must be a whole number from 0 to"),
    ],
)
def test_a_number_beyond_its_bounds_is_refused_in_python_too(
    student: str, tmp_path: Path, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        fewstep.evaluate(student, output=tmp_path / "out", **choices)


def test_python_measures_as_the_command_does(student: str, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a red handwritten three\na blue handwritten six\n")
    prompts = str(tmp_path / "two.txt")
    found = fewstep.evaluate(
        student, output=tmp_path / "a", teacher=TEACHER, metrics=["digits"], prompts=prompts, device="cpu"
    )
    typed = evaluate(tmp_path / "b", models=(student,), metrics=("digits",), prompts=prompts, extras=Extras())
    assert found == typed


def test_a_stranger_without_a_named_teacher_is_asked_for_one(tmp_path: Path) -> None:
    stranger = write_student(write_teacher(tmp_path / "t"), tmp_path / "s")
    said = refused(tmp_path / "out", models=(str(stranger),), teacher=None)
    assert said.endswith("and every table shows the teacher; name it: --teacher MODEL.")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "There is no model to evaluate; name one, or --pictures FOLDER for pictures that"),
        ({"phase": "generate", "save_images": False, "models": ("m",)}, "--no-save-images with --phase generate would"),
        ({"phase": "score"}, "holds no evaluation; draw its pictures first: fewstep evaluate --phase generate"),
        ({"models": ("fewstep:digits",), "seeds": (1, 1)}, "The seeds are [1, 1]; give at least one, and each once."),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, **choices)


def test_text_in_pictures_is_read_offline(student: str, tmp_path: Path) -> None:
    (tmp_path / "quoted.txt").write_text('a white handwritten "3"\na white handwritten "7"\n')
    none = Extras(ladder=(), ladder_prompts=0, strip_prompts=0)
    summary = evaluate(
        tmp_path / "eval", models=(student,), metrics=("ocr",), prompts=str(tmp_path / "quoted.txt"), extras=none
    )
    assert summary is not None
    shares = [row["value"] for row in summary["scores"] if row["figure"] == "ocr"]
    # one letter each: read, or not
    assert all(share in (0.0, 0.5, 1.0) for share in shares)
    assert len(shares) == 2
