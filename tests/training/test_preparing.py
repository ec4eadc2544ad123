"""What a run decides when it starts stays decided: in its folder, and whatever a later machine has room for."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fewstep.training.preparing import tell_of_precision
from fewstep.training.run import train
from tests.training.test_run import assert_same_state
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state

AUTO = "memory.gradient_checkpointing=auto"


def kept(folder: Path) -> object:
    return json.loads((folder / "config.json").read_text())["memory"]["gradient_checkpointing"]


def test_auto_is_told_with_its_reason_and_kept_in_the_folder(tmp_path: Path) -> None:
    said = io.StringIO()
    train(recipe(tmp_path, AUTO), output=tmp_path / "run", console=Console(file=said, width=300))
    assert kept(tmp_path / "run") is True
    (line,) = [line for line in said.getvalue().splitlines() if "is auto" in line]
    assert line.startswith("memory.gradient_checkpointing is auto, so it is true: a network of ")


def test_a_resume_keeps_what_the_run_began_with(tmp_path: Path) -> None:
    run_stopped_after(recipe(tmp_path, "memory.gradient_checkpointing=selective"), tmp_path / "run", steps=2)
    said = io.StringIO()
    train(recipe(tmp_path, AUTO), output=tmp_path / "run", resume=True, console=Console(file=said, width=300))
    assert kept(tmp_path / "run") == "selective"
    assert "so it is selective: the run began with it." in said.getvalue()
    run(recipe(tmp_path), tmp_path / "whole")
    assert_same_state(saved_state(tmp_path / "run"), saved_state(tmp_path / "whole"))


def test_a_resume_may_name_another_kind(tmp_path: Path) -> None:
    run_stopped_after(recipe(tmp_path, AUTO), tmp_path / "run", steps=2)
    run(recipe(tmp_path, "memory.gradient_checkpointing=false"), tmp_path / "run", resume=True)
    assert kept(tmp_path / "run") is False


@pytest.mark.parametrize(
    ("compute", "multiplies", "width", "said"),
    [
        ("fp32", True, 4000, ["This CPU multiplies in bf16: a run with precision.compute=bf16 takes fewer seconds."]),
        (
            "bf16",
            False,
            4000,
            ["This CPU has no products in bf16: a run with precision.compute=fp32 takes fewer seconds."],
        ),
        ("bf16", True, 4000, []),
        ("fp32", False, 4000, []),
        ("fp32", True, 40, []),
    ],
)
def test_a_large_network_is_told_of_the_faster_precision(
    compute: str, multiplies: bool, width: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": multiplies}, raising=False)
    told: list[str] = []
    network = torch.nn.Linear(width, width, device="meta")
    tell_of_precision(compute, torch.device("cpu"), network, told.append)
    assert told == said
