"""How a model is asked for, and what its own files complete."""

from pathlib import Path

import pytest

from fewstep.errors import ConfigError
from fewstep.evaluation.models import find_teacher, parse_spec, require_distinct_names, resolve
from fewstep.seals import fingerprint
from tests.evaluation.tiny_models import write_student, write_teacher


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_student(write_teacher(folder / "teacher"), folder / "student", named_teacher="owner/teacher")


def test_choices_follow_the_model() -> None:
    spec = parse_spec("owner/name,steps=4,guidance_scale=1.5,name=mine,lora=factors,lora_scale=0.8")
    assert (spec.model, spec.steps, spec.guidance_scale, spec.name) == ("owner/name", 4, 1.5, "mine")
    assert (spec.lora, spec.lora_scale) == ("factors", 0.8)


def test_sigmas_are_separated_by_slashes() -> None:
    assert parse_spec("m,sigmas=1/0.9/0.75/0.5").sigmas == (1.0, 0.9, 0.75, 0.5)


def test_a_student_is_drawn_as_its_files_say(student: Path) -> None:
    entry = resolve(parse_spec(str(student)), "student")
    assert entry.name == "student"
    assert entry.fingerprint == fingerprint(student)
    chosen = entry.sampling
    assert (chosen.sampler, chosen.steps, chosen.guidance_scale, chosen.height) == ("own", 4, 1.0, 16)


def test_the_embedded_teacher_is_drawn_as_its_files_say() -> None:
    chosen = resolve(parse_spec("fewstep:digits"), "teacher").sampling
    assert (chosen.steps, chosen.guidance_scale, chosen.height, chosen.width) == (50, 1.5, 32, 32)


def test_the_teacher_is_found_in_the_students_files(student: Path) -> None:
    found = find_teacher([parse_spec(str(student))])
    assert found is not None
    assert (found.model, found.name) == ("owner/teacher", "teacher")


def test_the_embedded_teacher_with_other_steps_is_compared_with_itself() -> None:
    asked = parse_spec("fewstep:digits,steps=4")
    found = find_teacher([asked])
    assert found is not None and (found.model, found.name, found.steps) == ("fewstep:digits", "teacher", None)
    require_distinct_names([resolve(asked, "student"), resolve(found, "teacher")])


@pytest.mark.parametrize("name", ["../outside", "a/b", "..", "", ".hidden"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which is to be a folder's name too; use letters, digits, dots, hyphens"):
        parse_spec(f"m,name={name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,step=4", r"--model 'm,step=4' sets step to '4': Extra inputs .* What can be set is name, steps, sigmas,"),
        ("m,steps=four", r"sets steps to 'four': Input should be a valid integer"),
        ("m,steps", r"'steps' in --model 'm,steps' is no KEY=VALUE"),
        ("m,steps=3,sigmas=1/0.5", r"has 2 sigmas but steps=3; leave steps out"),
    ],
)
def test_a_choice_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec(text)


def test_a_run_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is the folder of a run; export its student first: fewstep export"):
        resolve(parse_spec(str(tmp_path)), "student")


def test_a_lora_needs_the_stock_sampler(student: Path) -> None:
    with pytest.raises(ConfigError, match=r"a LoRA and sampler=own; factors need sampler=stock"):
        resolve(parse_spec(f"{student},lora=x,sampler=own"), "student")


def test_two_models_of_one_name_are_refused(student: Path) -> None:
    entries = [resolve(parse_spec(str(student)), "student")] * 2
    with pytest.raises(ConfigError, match=r"Two models are called student; name one of them: --model .*,name=another"):
        require_distinct_names(entries)
