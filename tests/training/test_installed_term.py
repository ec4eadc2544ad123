"""A loss term of an installed package in a whole run: trained, logged, resumed."""

import json
from pathlib import Path

from tests.config.outside_term import Install, add
from tests.training.tiny_run import recipe, run


def test_a_term_of_a_package_trains_is_logged_and_is_there_on_resume(tmp_path: Path, install: Install) -> None:
    add(install)
    terms = "terms={ca: null, dm: null, cdm: null, attract: {strength: 1.5}}"
    run(recipe(tmp_path, terms, "budget.student_updates=1"), tmp_path / "run")
    folder = run(recipe(tmp_path, terms, "budget.student_updates=2"), tmp_path / "run", resume=True)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/attract" in line] == [1, 3]
    assert folder.config.terms.active()["attract"].model_dump()["strength"] == 1.5
