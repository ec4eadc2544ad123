"""The pins of the lowest versions."""

from pathlib import Path

import pytest

from tools.lowest import lowest

PROJECT = """
[project]
dependencies = ["numpy>=2.0", "torch>=2.6"]
[project.optional-dependencies]
eval = ["datasets>=3.0"]
loose = ["anything"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "constraints.txt").write_text("# exact\nnumpy==2.4.6\ntorch==2.13.0\n")
    return tmp_path


def test_every_bound_becomes_a_pin(project: Path) -> None:
    assert list(lowest(project, extras=["eval"])) == ["numpy==2.0", "torch==2.6", "datasets==3.0"]


def test_a_package_may_stay_at_its_constraint(project: Path) -> None:
    assert list(lowest(project, keep=["torch"])) == ["numpy==2.0", "torch==2.13.0"]


@pytest.mark.parametrize(
    ("extra", "said"), [("loose", "anything in pyproject.toml has no lower bound"), ("evil", "There is no extra evil")]
)
def test_what_has_no_bound_or_does_not_exist_is_refused(project: Path, extra: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(lowest(project, extras=[extra]))


def test_every_package_of_ours_has_a_bound() -> None:
    assert "diffusers==0.42" in list(lowest(Path(__file__).parents[2], extras=["eval", "parquet", "dev"]))
