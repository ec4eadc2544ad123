"""Which models the demo's metrics refuse, and with what grid they draw."""

import json
from pathlib import Path

import pytest

from fewstep.demo.rows import load_teacher
from fewstep.errors import ConfigError
from fewstep.evaluation.run import evaluate, own_steps


def test_a_run_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"recipe": "digits"}))
    with pytest.raises(ConfigError, match=r"is the folder of a run; export its student first: fewstep export"):
        evaluate(tmp_path)


def test_the_teacher_is_measured_at_its_own_number_of_steps() -> None:
    assert own_steps(load_teacher()) == 50
