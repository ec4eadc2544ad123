"""How a model is asked for, and what its own files complete."""

from pathlib import Path

import pytest

from fewstep.errors import ConfigError
from fewstep.evaluation.models import find_teacher, require_distinct_names, resolve
from fewstep.sampling.model_spec import parse_spec
from fewstep.seals import fingerprint
from tests.evaluation.tiny_models import write_student, write_teacher


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_student(write_teacher(folder / "teacher"), folder / "student", named_teacher="owner/teacher")


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
