"""The driver of `make test-portable`: which settings it runs, and what it says."""

import os
from pathlib import Path

import pytest

from tests import portable


def test_a_setting_is_added_to_the_environment_and_others_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX")
    found = portable.environment("torch-avx2", 4)
    assert found["ATEN_CPU_CAPABILITY"] == "avx2" and found["FEWSTEP_TEST_THREADS"] == "4"
    assert "MKL_CBWR" not in found and found["PATH"] == os.environ["PATH"]


def test_failures_are_named_and_end_with_1(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "test_none.py")
    assert portable.main(["oldest", "--threads", "2", "--workers", "0", "--tests", missing]) == 1
    verdict, reason = capfd.readouterr().out.splitlines()[:2]
    assert verdict.startswith("oldest, threads 2: FAILED (") and missing in reason


def test_an_unknown_setting_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        portable.main(["pentium"])
    assert "there is no setting pentium; there are torch-without-vectors, " in capfd.readouterr().err
