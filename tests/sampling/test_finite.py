"""What is not a number is never drawn, stored or trained on: the part that made it is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep
from fewstep.backbones import create_model_adapter
from fewstep.backbones.finite import require_finite
from fewstep.cli.main import execute
from fewstep.errors import CheckpointError, ConfigError
from fewstep.sampling import load_model
from fewstep.sampling.model_spec import parse_spec
from tests.backbones import damage
from tests.training.tiny_run import write_inputs

PARTS = list(damage.FILES)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, prompts and tiny.yaml."""
    folder = tmp_path_factory.mktemp("whole")
    write_inputs(folder)
    return folder


@pytest.fixture
def inputs(whole: Path, tmp_path: Path) -> Path:
    """A copy of that folder to damage."""
    copy = tmp_path / "inputs"
    shutil.copytree(whole, copy)
    recipe = copy / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace(str(whole), str(copy)))
    return copy


def told(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The sentence of a command that ends with 2."""
    capsys.readouterr()
    assert execute(command) == 2
    said = capsys.readouterr().err.splitlines()
    return said[-1].removeprefix("fewstep: ")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("part", PARTS)
def test_no_picture_is_written_and_the_part_is_named(
    part: str, value: float, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.put(inputs / "teacher", part, value)
    output = inputs / "out" / "p.png"
    said = told(capsys, "sample", str(inputs / "teacher"), "--prompt", "x", "--steps", "1", "--output", str(output))
    assert said == (
        f"The {part} of {inputs / 'teacher'} gives numbers that are not finite: its weight {damage.WEIGHTS[part]} "
        "holds such ones. Get the model again."
    )
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("value", [NAN, INF])
def test_no_embedding_is_published(value: float, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage.put(inputs / "teacher", "text encoder 2", value)
    said = told(capsys, "embed", str(inputs / "tiny.yaml"), "--root", str(inputs / "runs"))
    assert said.startswith(f"The text encoder 2 of {inputs / 'teacher'} gives numbers that are not finite")
    assert list((inputs / "runs").rglob("*.safetensors")) == []


@pytest.mark.parametrize("sampler", ["own", "stock"])
@pytest.mark.parametrize("part", PARTS)
def test_an_evaluation_draws_no_picture(
    part: str, sampler: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.put(inputs / "teacher", part, NAN)
    model = f"{inputs / 'teacher'},steps=1,height=16,width=16,sampler={sampler}"
    command = ["evaluate", "--phase", "generate", "--model", f"{model},name=a", "--teacher", model]
    said = told(capsys, *command, "--prompts", str(inputs / "prompts.txt"), "--output", str(inputs / "out"))
    assert "gives numbers that are not finite" in said and damage.WEIGHTS[part] in said
    assert list((inputs / "out").rglob("*.png")) == []


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_weights_of_whole_numbers_are_refused(
    part: str, pickled: bool, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.as_whole_numbers(inputs / "teacher", part, pickled=pickled)
    said = told(capsys, "sample", str(inputs / "teacher"), "--prompt", "x", "--output", str(inputs / "p.png"))
    stored = "torch.int64" if pickled else "I64"
    assert f"is stored as {stored} in" in said and damage.FILES[part].partition("/")[0] in said


@pytest.mark.parametrize("shift", [NAN, INF, 0.0, -3.0])
def test_a_scheduler_without_a_clock_is_refused_when_it_is_opened(shift: float, inputs: Path) -> None:
    path = inputs / "teacher" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shift": shift}))
    with pytest.raises(CheckpointError) as caught:
        create_model_adapter(inputs / "teacher")
    assert str(caught.value).startswith("The scheduler ")
    assert str(inputs / "teacher") in str(caught.value)
    assert re.search(rf"\bshift\W+ {shift}\b", str(caught.value))


@pytest.mark.parametrize("part", ["network", "text encoder 2"])
def test_the_first_update_blames_what_is_damaged(
    part: str, inputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage.put(inputs / "teacher", part, NAN)
    if part == "text encoder 2":  # as a cache of another version holds them
        monkeypatch.setattr("fewstep.data.building.require_finite_encoding", lambda adapter, pipeline, cond: cond)
    said = told(capsys, "train", str(inputs / "tiny.yaml"), "--output", str(inputs / "run"))
    expected = f"The teacher {inputs / 'teacher'} predicts" if part == "network" else "The prompt embeddings of this"
    assert said.startswith(expected)
    assert "learning rate" not in said


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "guidance nan": ({"guidance_scale": NAN}, "guidance_scale is nan; it must be a number from 0 to 1000"),
    "guidance inf": ({"guidance_scale": INF}, "guidance_scale is inf; it must be a number from 0 to 1000"),
    "guidance negative": ({"guidance_scale": -1.0}, "guidance_scale is -1.0; it must be"),
    "guidance of texts": ({"guidance_scale": "3"}, "guidance_scale is '3'; it must be"),
    "a seed of 65 bits": ({"seed": 2**64}, "seed is 18446744073709551616; it must be a whole number"),
    "a seed of thousands of digits": ({"seed": 10**5000}, "seed is a whole number of 16610 bits; it must be"),
    "a negative seed": ({"seed": -1}, "seed is -1; it must be"),
    "a fraction as seed": ({"seed": 1.5}, "seed is 1.5; it must be"),
    "no step": ({"steps": 0}, "steps is 0; it must be a whole number from 1 to 1000"),
    "steps for years": ({"steps": 10**12}, "steps is 1000000000000; it must be"),
    "half a step": ({"steps": 1.5}, "steps is 1.5; it must be a whole"),
}


@pytest.mark.parametrize(("asked", "said"), ASKED.values(), ids=ASKED)
def test_a_call_that_asks_for_no_number_is_refused_before_a_model_is_opened(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fewstep.sample("no/model/here", "a cat", **asked)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("sigmas", [[], [NAN], [1.0, NAN], [INF, 0.5], [0.5, 0.5], [0.5, 1.0], [1.0, 0.0], [1.5]])
def test_noise_levels_that_are_none_are_refused(sigmas: list[float]) -> None:
    if sigmas:
        with pytest.raises(ConfigError, match=r"sigmas"):
            parse_spec(f"a/b,sigmas={'/'.join(map(str, sigmas))}")
    model = load_model("fewstep:digits", "cpu")
    with pytest.raises(ConfigError, match=r"^The sigmas are .*; they must descend from at most 1 and stay above 0"):
        model.latents(["a red handwritten three"], [0], sigmas=sigmas)


def test_overflow_of_sound_weights_is_told_as_such() -> None:
    with pytest.raises(
        CheckpointError, match=r"^The VAE of m gives numbers .* or compute in fp32 if it was asked in h"
    ):
        require_finite([torch.tensor([1.0, INF])], model="m", parts={"VAE": torch.nn.Linear(1, 1)})


def test_whole_numbers_and_masks_are_finite() -> None:
    require_finite([torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.bool)], model="m", parts={})


def test_one_look_serves_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    read: Callable[[torch.Tensor], bool] = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: looks.append(1) or read(self))
    require_finite([torch.ones(2), torch.ones(3), torch.ones(4)], model="m", parts={"VAE": None})
    assert len(looks) == 1
