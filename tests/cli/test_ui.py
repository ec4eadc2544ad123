"""``fewstep ui``: what it refuses before anything is loaded."""

import sys

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


def test_a_port_in_use_is_the_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="gradio, of the extra ui, is not installed")
    with listen("127.0.0.1", 0) as taken:
        assert execute(["ui", "--port", str(taken.getsockname()[1])]) == 2
    assert "is in use; choose another with --port" in capsys.readouterr().err
