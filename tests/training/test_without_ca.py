"""A recipe without ca, whose teacher is not guided: from the plan to the exported student, on two families."""

import json
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from tests.backbones import tiny, tiny_packed
from tests.training.tiny_run import write_inputs

FLUX = {"kind": "flux", "height": 16, "width": 16, "max_sequence_length": 8, "ca": {"mode": "off"}}


@pytest.fixture(scope="module", params=["sd3", "flux"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of ``write_inputs``, ca and all, on one of the families."""
    folder = tmp_path_factory.mktemp(request.param)
    path = write_inputs(folder)
    if request.param == "flux":
        model = str(tiny.save(tiny_packed.flux_pipeline(), folder / "flux"))
        path.write_text(json.dumps({**json.loads(path.read_text()), "backbone": {**FLUX, "model": model}}))
    return path


def test_a_student_without_ca_trains_and_is_exported(recipe: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert execute(["train", str(recipe), "terms.ca=null", "budget.student_updates=1", "--output", str(run)]) == 0
    *_, last = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert {name for name in last if name.startswith("loss/")} == {"loss/fake_score", "loss/dm", "loss/cdm"}
    assert execute(["export", str(run), "--output", str(out)]) == 0
    assert json.loads((out / "fewstep.json").read_text())["role"] == "student"


def test_a_recipe_without_ca_can_be_planned(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", str(recipe), "terms.ca=null", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["fits"] is True
    assert made["flops_per_step"] > 0
