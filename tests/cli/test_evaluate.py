"""``fewstep evaluate`` as it is typed."""

import json
import re
from pathlib import Path

import pytest

from fewstep.cli.evaluate import parse_settings, repeat_options
from fewstep.cli.main import execute
from fewstep.errors import ConfigError
from fewstep.scores.registry import create_metrics
from tests.evaluation.tiny_models import write_embedded_student


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedded_student(tmp_path_factory.mktemp("models") / "student")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert execute(["evaluate", *arguments]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--metrics", "fid", "ocr", "--json"], ["--metrics", "fid", "--metrics", "ocr", "--json"]),
        (["--metrics", "fid", "--metrics", "ocr"], ["--metrics", "fid", "--metrics", "ocr"]),
        (
            ["--model", "a", "--metrics", "fid", "kid", "ocr"],
            ["--model", "a", *["--metrics", "fid", "--metrics", "kid"], "--metrics", "ocr"],
        ),
        (["--ladder", "1", "2", "--seeds", "3"], ["--ladder", "1", "--ladder", "2", "--seeds", "3"]),
        (["student", "--steps", "4"], ["student", "--steps", "4"]),
    ],
)
def test_several_values_after_one_option_are_repeated_options(typed: list[str], meant: list[str]) -> None:
    assert repeat_options(typed) == meant


def test_the_two_phases_work_as_they_are_typed(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "drawbench.txt"
    prompts.write_text("a red handwritten three\na blue handwritten six\n")
    output = str(tmp_path / "eval")
    common = ["--metrics", "digits", "vendi", "--set", "vendi.extractor=digits", "--output", output]
    drawn = ["--model", str(student), "--teacher", "fewstep:digits,steps=3", "--prompts", str(prompts)]
    rest = ["--save-images", "--ladder", "0", "--device", "cpu"]
    assert execute(["evaluate", "--phase", "generate", *drawn, *common, *rest]) == 0
    # two prompts at their one seed, and seven further seeds each for the report
    assert "Drawing student: 16 of 16 images to do" in " ".join(capsys.readouterr().out.split())
    assert execute(["evaluate", "--phase", "score", *common, "--device", "cpu", "--json"]) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out.splitlines()[-1])
    assert {row["figure"] for row in summary["scores"]} >= {"digits", "vendi"}
    assert "| teacher (teacher) | 3 |" in told.err
    assert "The report is" in told.err


def test_a_model_may_stand_alone_before_the_options(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ["--teacher", "fewstep:digits,steps=2", "--num-prompts", "2", "--ladder", "0", "--device", "cpu"]
    assert execute(["evaluate", str(student), *chosen, "--metrics", "digits", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (tmp_path / "runs" / "evaluation" / "report.html").is_file()
    again = ["--model", str(student), "--output", "again", "--metrics", "digits", "--json"]
    assert execute(["evaluate", *chosen, *again]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == alone


def test_metrics_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["evaluate", "metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    issue = ["imagereward", "clipscore", "pickscore", "hpsv2", "hpsv3", "aesthetic", "ocr", "dpgbench", "fid", "kid"]
    assert {*issue, "cmmd", "prdc", "vendi", "diversity", "geneval", "judge"} <= set(names)


def test_an_unknown_metric_cannot_be_converted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "convert", "fidd", "somewhere", "--output", str(tmp_path / "x"))
    assert "fidd" in said
    assert "imagereward" in said


def test_evaluations_without_scores_cannot_be_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "holds no scores.json; score it first" in refused(capsys, "compare", str(tmp_path))


def test_settings_are_numbers_where_they_look_like_it() -> None:
    found = parse_settings(["fid.reference=real", "prdc.neighbours=3", "prdc.batch=16"])
    assert found == {"fid": {"reference": "real"}, "prdc": {"neighbours": 3, "batch": 16}}


@pytest.mark.parametrize("text", ["fid", "fid=3", "fid.reference", ".reference=x"])
def test_a_setting_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no METRIC.FIELD=VALUE, such as --set fid.reference=FOLDER"):
        parse_settings([text])


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"The value of --set 'fid.reference=\[' is not valid YAML"):
        parse_settings(["fid.reference=["])


@pytest.mark.parametrize(
    "value",
    ["1" * 5000, "[" * 5000, "!!python/object/apply:os.system [ls]", "{a: &a [1], b: *a, a: 2}", "&a [*a]", "\\x1b[2J"],
)
def test_a_value_beyond_the_bounds_of_settings_is_refused(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_metrics(["prdc"], parse_settings([f"prdc.neighbours={value}"]))
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "setting",
    [
        "prdc.neighbours=1e30",
        "prdc.batch=-1",
        "judge.tries=21",
        "judge.timeout_seconds=.inf",
        "judge.pause_seconds=.nan",
    ],
)
def test_a_number_beyond_its_bounds_is_refused_with_its_name(setting: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"The setting {re.escape(name)} is "):
        create_metrics([name.partition(".")[0]], parse_settings([setting]))


@pytest.mark.parametrize(
    "option",
    [
        ("--seeds", "1000000000000"),
        ("--first-seed", "9223372036854775807"),
        ("--num-prompts", "1" * 4400),
        ("--steps", "1001"),
        ("--batch", "10000000"),
        ("--threads", "100000"),
        ("--ladder", "100000"),
        ("--guidance-scale", "nan"),
        ("--guidance-scale", "inf"),
        ("--model", "x,steps=100000"),
        ("--model", "x,guidance_scale=nan"),
        ("--model", "x,lora_scale=inf"),
        ("--model", "x,height=10000000"),
        ("--model", "x,sigmas=" + "/".join(["1"] * 5000)),
        ("--model", "x" * 5000),
    ],
)
def test_an_option_beyond_its_bounds_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: tuple[str, str]
) -> None:
    assert execute(["evaluate", *option, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert option[0] in said
    assert len(said) < 8000
    assert not (tmp_path / "out").exists()


def test_help_names_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["evaluate", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--phase" in told
    assert "fewstep evaluate convert | metrics | compare" in told


def test_help_states_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["evaluate", "--help"])
    told = " ".join(word for word in capsys.readouterr().out.split() if word != "│")  # however wide the terminal is
    assert "default: (drawbench;" in told
    assert "the one that the student" in told
