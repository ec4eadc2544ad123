"""What the parts of a model raise over each other is told as one sentence; what is ours stays as it is."""

import json
from pathlib import Path

import pytest
import torch

from fewstep.backbones.using import using
from fewstep.cli.main import execute
from fewstep.errors import CheckpointError, ConfigError
from tests.backbones import tiny


def test_a_complaint_of_one_part_about_another_is_one_sentence() -> None:
    with pytest.raises(CheckpointError) as caught, using("./teacher", "embed prompts"):
        torch.nn.functional.embedding(torch.tensor([9]), torch.zeros(2, 2))
    said = str(caught.value)
    assert said.startswith("The parts of ./teacher do not embed prompts together (IndexError: index out of range")
    assert said.endswith("Its files do not belong to each other, or one was changed; get the model again.")
    assert said.isprintable()


@pytest.mark.parametrize(
    "error", [ConfigError("x"), torch.OutOfMemoryError("x"), KeyboardInterrupt(), AssertionError()]
)
def test_what_is_no_fault_of_the_files_is_left_alone(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, using("./teacher", "draw"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(("key", "value"), [("model_max_length", "many"), ("bos_token", "../../outside")])
def test_a_tokenizer_that_fits_no_encoder_is_told(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tiny.save(tiny.sd3_pipeline(t5=False), tmp_path / "teacher")
    file = teacher / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert execute(["sample", str(teacher), "--prompt", "x", "--steps", "1", "--output", str(tmp_path / "p.png")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"fewstep: The parts of {teacher} do not ")
