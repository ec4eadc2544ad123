"""The one check of a prompt, and the places where prompts enter."""

from pathlib import Path

import pytest

import fewstep
from fewstep.cli.main import execute
from fewstep.errors import ConfigError
from fewstep.evaluation.prompt_sets import prompt_set
from fewstep.prompts.text import MAX_CHARACTERS, require_prompt
from fewstep.sampling import load_model

BROKEN = {
    "a byte that is not UTF-8": ("a \udcff cat", "has the byte 0xff in its prompt"),
    "half a pair": ("a cat \ud83d", "has half a character (U+D83D) in its prompt"),
    "NUL": ("a\0cat", "has a NUL character in its prompt"),
    "too long": ("a" * (MAX_CHARACTERS + 1), "has a prompt of 32769 characters"),
    "a mark in the middle of a file": ("\ufeffa cat", "has a prompt that begins with a byte order mark"),
    "a number": (3, "is 3; a prompt must be a text"),
    "bytes": (b"a cat", "is b'a cat'; a prompt must be a text"),
    "nothing": (None, "is null; a prompt must be a text"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_what_no_tokenizer_takes_is_refused_with_its_place(text: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_prompt(text, place="Row 3 of mine")
    assert str(caught.value).startswith(f"Row 3 of mine {said}")
    assert len(str(caught.value)) < 300
    str(caught.value).encode()  # it can be printed


@pytest.mark.parametrize("text", ["", "a cat", "ein Kätzchen 🐈 \u2028 猫", "\t", "a" * MAX_CHARACTERS, "<script>"])
def test_every_other_text_stays_as_it_is(text: str) -> None:
    assert require_prompt(text, place="Row 1") == text


@pytest.mark.parametrize("text", ["a \udcff cat", "a\0cat", "a" * 100_000])
def test_a_command_line_is_checked_before_a_model_is_opened(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", str(tmp_path / "no-model"), "--output", str(tmp_path / "p.png"), "--prompt"]
    assert execute([*command, "a cat", "--prompt", text]) == 2
    assert capsys.readouterr().err.startswith("fewstep: Prompt 2 of 2 has ")
    assert execute([*command, "a cat", "--negative-prompt", text]) == 2
    assert capsys.readouterr().err.startswith("fewstep: The negative prompt has ")
    assert list(tmp_path.iterdir()) == []


def test_a_call_from_python_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^Prompt 2 of 2 is 3; a prompt must be a text"):
        fewstep.sample(tmp_path / "no-model", ["a cat", 3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"^The prompts are 3; give a text or a list of texts"):
        fewstep.sample(tmp_path / "no-model", 3)  # type: ignore[arg-type]


def test_an_opened_model_checks_its_prompts() -> None:
    with pytest.raises(ConfigError, match=r"^Prompt 1 of 1 has a NUL character"):
        load_model("fewstep:digits", "cpu").latents(["a\0cat"], [0])


def test_a_row_of_an_evaluation_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"^Row 2 of mine has half a character"):
        prompt_set("mine", [{"prompt": "a"}, {"prompt": "\ud800"}])
