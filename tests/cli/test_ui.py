"""``fewstep ui``: what it refuses before anything is loaded, and how it ends."""

import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest

from fewstep.cli.main import execute
from fewstep.ui.server import listen


def test_without_gradio_one_sentence_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert execute(["ui"]) == 2
    assert capsys.readouterr().err == (
        "fewstep: fewstep ui needs gradio, which is not installed; install it with: pip install 'fewstep[ui]'\n"
    )


@pytest.mark.parametrize("model", ["nowhere/at/all", "fewstep:letters"])
def test_what_cannot_be_opened_is_one_sentence(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="gradio, of the extra ui, is not installed")
    assert execute(["ui", model, "--port", "0"]) == 2
    told = capsys.readouterr()
    assert model in told.err and told.err.count("\n") == 1 and told.out == ""


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_ends_the_page_with_130_wherever_it_was_started(ignored: bool) -> None:
    pytest.importorskip("gradio")
    # as a shell starts what a script puts into the background
    first = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None
    command = [sys.executable, "-m", "fewstep", "ui", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=first)
    assert process.stdout is not None
    address = process.stdout.readline().split()[4]
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(address, timeout=60):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (130, "fewstep: Interrupted.\n")


def test_a_port_in_use_is_the_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="gradio, of the extra ui, is not installed")
    with listen("127.0.0.1", 0) as taken:
        assert execute(["ui", "--port", str(taken.getsockname()[1])]) == 2
    assert "is in use; choose another with --port" in capsys.readouterr().err
