"""``fewstep doctor``: what is printed and the exit code; each thing it looks at is tested in tests/doctor."""

import json
from pathlib import Path

import pytest

from fewstep.cli.main import execute


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_nothing_broken_ends_with_0_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(" 0 broken\n")
    assert "note    hub: offline by HF_HUB_OFFLINE" in printed
    assert "self-test" not in printed
    assert list(tmp_path.iterdir()) == []


def test_something_broken_ends_with_2_and_the_rest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("")
    assert execute(["doctor", "--quick"]) == 2
    printed = capsys.readouterr().out
    assert "broken  runs: runs cannot be written to" in printed
    assert "\nfine    cache: " in printed or "\nnote    cache: " in printed


def test_every_line_as_json_that_is_not_fine_has_its_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {"fewstep", "torch", "cpu", "attention", "runs", "cache", "hub", "self-test"} <= {x["about"] for x in lines}
    assert all((line["state"] == "fine") == (line["fix"] is None) for line in lines)
