"""The wheel alone, in an empty environment: what a user gets who never sees the source, and what its demo reaches.

The claims are gates that hold on any machine, on training seed 0, not the figures of one.
"""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

import fewstep
from tests.slow.conftest import DemoRun, Installed

ROWS = ("real", "teacher_50", "teacher_4", "student_4")
FIGURES = {"fd", "kd", "accuracy", "precision", "recall", "density", "coverage", "diversity", "tv", "guidance", "n"}
FACTS = {"seeds", "threads", "train_seconds", "total_seconds", "peak_mib", "cached"}
PROMPT = "a red handwritten three"


@pytest.fixture(scope="module")
def student(installed: Installed, demo: DemoRun) -> tuple[Path, str]:
    """The demo's student exported again by hand, and what the command printed."""
    printed = installed.fewstep("export", demo.run, "--output", "out/student").stdout
    return installed.work / "out" / "student", printed


def test_the_installed_command_knows_its_version(installed: Installed) -> None:
    assert installed.fewstep("--version").stdout == f"fewstep {fewstep.__version__}\n"


def test_what_is_imported_is_the_wheel_and_not_the_source(installed: Installed) -> None:
    where = installed.python("-c", "import fewstep; print(fewstep.__file__)").stdout
    assert str(installed.bin.parent) in where


def test_the_wheels_dependencies_agree_with_each_other(installed: Installed) -> None:
    assert "No broken requirements found" in installed.python("-m", "pip", "check").stdout


def test_the_recipes_are_in_the_wheel(installed: Installed) -> None:
    listed = installed.fewstep("recipes").stdout
    assert re.search(r"^digits +CDM on the embedded teacher", listed, re.MULTILINE)
    assert re.search(r"^scenes +CDM on the embedded teacher", listed, re.MULTILINE)
    assert "model: fewstep:digits\n" in installed.fewstep("recipe", "show", "digits", "--resolved").stdout


def test_the_type_marker_is_in_the_wheel(installed: Installed) -> None:
    program = "from importlib.resources import files; print((files('fewstep') / 'py.typed').is_file())"
    assert installed.python("-c", program).stdout == "True\n"


def test_the_conformance_suite_is_in_the_wheel_and_asks_for_pytest(installed: Installed) -> None:
    program = "from importlib.resources import files; print((files('fewstep') / 'testing/suite/drawing.py').is_file())"
    assert installed.python("-c", program).stdout == "True\n"
    asked = "try:\n    import fewstep.testing\nexcept ValueError as error:\n    print(error)"
    assert "fewstep.testing needs pytest; install it with" in installed.python("-c", asked).stdout


def test_the_shipped_files_in_the_wheel_are_whole(installed: Installed) -> None:
    program = (
        "from fewstep.embedded.assets import check_files; print(*(check_files(n).name for n in ('digits', 'scenes')))"
    )
    assert installed.python("-c", program).stdout == "digits scenes\n"


def test_the_last_line_of_the_demo_has_every_field(demo: DemoRun) -> None:
    assert demo.printed.keys() >= {*ROWS, *FACTS}
    assert all(demo.printed[row].keys() == FIGURES for row in ROWS)
    assert all(demo.printed[row]["n"] == 1400 for row in ROWS)
    assert (demo.printed["seeds"], demo.printed["cached"]) == ([0], False)
    assert demo.printed["train_seconds"] < demo.printed["total_seconds"] <= demo.seconds


def test_the_demo_says_where_its_pictures_are(demo: DemoRun) -> None:
    assert "runs/demo/report.html" in demo.told
    assert (demo.output / "report.html").stat().st_size > 10_000


def test_a_second_demo_is_quick_and_says_the_same(installed: Installed, demo: DemoRun) -> None:
    again = json.loads(installed.fewstep("demo", "--json").stdout.splitlines()[-1])
    assert again["cached"] is True
    assert again["total_seconds"] < 60
    assert all(again[row] == demo.printed[row] for row in ROWS)


def test_the_student_draws_the_same_picture_every_time(installed: Installed, student: tuple[Path, str]) -> None:
    for name in ("one.png", "two.png"):
        drawing = ["--prompt", PROMPT, "--steps", "4", "--seed", "7", "--output", name]
        assert installed.fewstep("sample", "out/student", *drawing).stdout == f"{name}: {PROMPT}\n"
    first, second = (installed.work / name for name in ("one.png", "two.png"))
    assert Image.open(first).size == (32, 32)
    assert first.read_bytes() == second.read_bytes()


def test_the_printed_stock_call_draws_a_picture_in_that_environment(
    installed: Installed, student: tuple[Path, str]
) -> None:
    _, printed = student
    call = printed[printed.index("import torch") :]
    assert "fewstep" not in call
    installed.python("-c", call)
    picture = Image.open(installed.work / "picture.png").convert("L")
    assert picture.size == (32, 32)
    assert picture.getextrema()[1] - picture.getextrema()[0] > 64  # a stroke on a background


def test_a_student_exported_by_hand_is_the_demos_own(demo: DemoRun, student: tuple[Path, str]) -> None:
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (student[0] / weights).read_bytes() == (demo.run / "student" / weights).read_bytes()


def test_the_exported_student_is_loaded_without_fewstep_installed(
    installed: Installed, student: tuple[Path, str]
) -> None:
    program = (
        "import sys; sys.modules['fewstep'] = None\n"  # importing it fails
        "from diffusers import DiffusionPipeline\n"
        "p = DiffusionPipeline.from_pretrained('out/student', text_encoder_3=None, tokenizer_3=None)\n"
        "print(type(p).__name__)"
    )
    assert installed.python("-c", program).stdout.strip() == "StableDiffusion3Pipeline"


def test_the_teacher_is_near_enough_to_real_data_to_be_worth_distilling(demo: DemoRun) -> None:
    assert demo.printed["teacher_50"]["fd"] <= 2.2 * demo.printed["real"]["fd"]
    assert demo.printed["teacher_50"]["accuracy"] >= 0.99


# docs/demo.md claims something of the mean of three recorded trainings (tests/docs/test_claims.py). Here is one, and on
# another processor it is another one: it rounds differently from its first step on. The recorded three spread by .05 in
# FD and .002 in accuracy; 4,200 pictures add .0025 in accuracy and .005 in recall and coverage. From their mean (FD
# 1.16, .61 of the teacher's; accuracy .975; recall .92) each gate is four such spreads away.


def test_the_student_is_near_the_teacher_of_fifty_steps(demo: DemoRun) -> None:
    assert demo.printed["student_4"]["fd"] <= 1.5 * demo.printed["teacher_50"]["fd"]


def test_the_student_is_far_better_than_the_teacher_of_as_many_steps(demo: DemoRun) -> None:
    assert demo.printed["student_4"]["fd"] <= 0.75 * demo.printed["teacher_4"]["fd"]


@pytest.mark.parametrize(
    ("figure", "low", "high"),
    [
        ("accuracy", 0.96, 1.0),
        ("recall", 0.9, 1.0),
        ("coverage", 0.8, 1.0),
        ("tv", 0.0, 0.2),
        ("diversity", 0.7, 1.2),
    ],
)
def test_the_student_draws_what_is_asked_in_all_its_variety(
    figure: str, low: float, high: float, demo: DemoRun
) -> None:
    assert low <= demo.printed["student_4"][figure] <= high


def test_teacher_and_student_are_compared_on_equal_terms(demo: DemoRun) -> None:
    assert demo.printed["student_4"]["guidance"] == 1.0
    assert demo.printed["teacher_50"]["guidance"] in (1.0, 1.5, 2.0, 3.0)
    assert demo.printed["teacher_4"]["guidance"] in (1.0, 1.5, 2.0, 3.0)


def test_the_demo_keeps_to_its_memory(demo: DemoRun) -> None:
    assert demo.printed["peak_mib"] < 3 * 1024
