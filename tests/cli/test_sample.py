"""``fewstep sample``: options, pipes, sheets; what is drawn is tested in tests/sampling."""

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from fewstep.cli.main import execute

MODEL = "fewstep:digits"
DRAW = ["sample", MODEL, "--steps", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "2", "--sigmas", "1,0.5"], "steps and sigmas are both given; there are as many steps as sigmas"),
        (["--sigmas", "0.5,1"], "The sigmas are [0.5, 1.0]; they must descend from at most 1 and stay above 0."),
        (["--size", "32"], "size is '32'; write HEIGHTxWIDTH in pixels"),
        (["--size", "33x32"], "33 x 32 pixels do not fit fewstep:digits"),
        (["--lora", "nowhere.safetensors:0.5"], "There is no LoRA nowhere.safetensors: give a safetensors file"),
        (["--lora", "x.safetensors:5000"], "The scale of the LoRA 'x.safetensors:5000' is 5000.0; it must be a number"),
        (["--device", "nowhere"], "--device nowhere cannot be used here"),
        (["--compare", "fewstep:digits,steps=0"], "--compare 'fewstep:digits,steps=0' sets steps to '0'"),
        (["--compare", MODEL, "--grid"], "compare makes one sheet of its own, so grid has nothing to do"),
        (["--stdin", "--grid"], "--stdin draws each line as it comes, so --prompt has no place here; leave it out."),
    ],
)
def test_an_option_that_cannot_be_used_is_told_in_a_sentence(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["sample", MODEL, "--prompt", "x", "--output", "p.png", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"fewstep: {said}")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_all_options_of_a_picture_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choices = ["--size", "32x32", "--batch", "1", "--dtype", "bf16", "--device", "cpu", "--offload"]
    words = ["sample", MODEL, "--sigmas", "1.0,0.5", "--prompt", "a red three", "--output", "three.png", *choices]
    assert execute(words) == 0
    assert capsys.readouterr() == ("three.png: a red three\n", "")
    assert Image.open(tmp_path / "three.png").size == (32, 32)


def test_a_comparison_prints_its_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DRAW, "--prompt", "one", "--prompt", "two", "--output", "both.png", "--compare", f"{MODEL},steps=2"]
    assert execute(words) == 0
    assert capsys.readouterr() == ("both.png: 2 prompts\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["both.png"]


def test_lines_of_a_pipe_are_drawn_and_bad_ones_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a red three\n\xff\na blue four\n")))
    assert execute([*DRAW, "--stdin", "--output", "p.png"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "p-0000.png: a red three\np-0001.png: a blue four\n"
    assert printed.err.startswith("fewstep: Line 2 is not UTF-8 (byte 0xff")
    assert printed.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p-0000.png", "p-0001.png"]


def test_ctrl_c_at_a_pipe_ends_with_130_and_keeps_what_is_drawn(tmp_path: Path) -> None:
    # a shell ignores Ctrl-C for what it runs in the background
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{start}; from fewstep.cli.main import run; run()"
    command = [sys.executable, "-c", program, *DRAW, "--stdin", "--output", "p.png"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("a red three\n")
        process.stdin.flush()
        # the picture is told of while the pipe is still open
        assert process.stdout.readline() == "p-0000.png: a red three\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 130
    assert told.endswith("fewstep: Interrupted.\n") and "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["p-0000.png"]
    Image.open(tmp_path / "p-0000.png").load()


def test_a_bar_is_drawn_on_a_terminal_and_nothing_into_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fewstep", *DRAW, "--prompt", "a red three", "--output", "p.png"]
    parent, child = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, env=environment, text=True, check=True)
        shown = os.read(parent, 10_000).decode()
    finally:
        os.close(parent)
        os.close(child)
    assert done.stdout == "p.png: a red three\n"
    assert "Steps of fewstep:digits" in shown and "1/1" in shown
