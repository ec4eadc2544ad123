"""The suite itself: what it says of a port that is wrong, and that nothing of ours is a pipeline's to change."""

import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fewstep.testing import conformance
from fewstep.testing.case import Case, open_case, save
from fewstep.testing.suite.gradients import gradients, require_gradients_as_declared
from tests.backbones.families import FAMILIES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(FAMILIES["sd3"], tmp_path_factory.mktemp("pipeline") / "teacher")


@pytest.fixture
def case(folder: Path) -> Case:
    return open_case(FAMILIES["sd3"], folder)


def complaint(case: Case) -> str:
    with pytest.raises(pytest.fail.Exception) as failure:
        require_gradients_as_declared(case, gradients(case, checkpointing=False))
    return str(failure.value)


def test_the_failure_has_what_belongs_into_never_trained(case: Case) -> None:
    case.adapter.never_trained = ("pos_embed.*", "transformer_blocks.2.attn.add_q_proj.*")
    told = complaint(case)
    assert "pos_embed.proj.weight receives a gradient, but is named" in told
    case.adapter.never_trained = ()
    told = complaint(case)
    assert "transformer_blocks.2.attn.add_q_proj.bias receives no gradient, but is not named" in told


def test_what_the_failure_has_can_be_pasted(case: Case) -> None:
    case.adapter.never_trained = ("pos_embed.*", "transformer_blocks.2.attn.add_q_proj.w*")
    names: dict[str, Any] = {}
    exec(textwrap.dedent(complaint(case).partition("configuration:\n\n")[2]), names)
    right = ("transformer_blocks.2.attn.add_q_proj.w*", "transformer_blocks.2.attn.add_q_proj.bias")
    assert names["never_trained"] == right
    case.adapter.never_trained = right
    require_gradients_as_declared(case, gradients(case, checkpointing=False))


def test_a_pipeline_that_writes_into_its_prompts_changes_none_of_ours(case: Case) -> None:
    def writing(pipeline: Any, call: dict[str, Any]) -> Any:
        drawn = pipeline(**call, return_dict=False)[0]
        call["prompt"][:] = ["written by diffusers' Z-Image pipeline"]
        return drawn

    case.family = replace(case.family, stock_call=writing)
    prompts = ["a red cat"]
    first = case.stock(prompts=prompts)
    assert prompts == ["a red cat"]
    assert first.equal(case.stock(prompts=prompts))


def test_pytest_explains_the_assertions_of_the_suite() -> None:
    for name in ("closeness", "suite.drawing", "suite.exporting"):
        loader = import_module(f"fewstep.testing.{name}").__loader__
        assert type(loader).__name__ == "AssertionRewritingHook"


def test_every_test_of_the_suite_asks_for_a_family() -> None:
    suite = conformance(FAMILIES["sd3"])
    names = [name for name in dir(suite) if name.startswith("test_")]
    assert len(names) > 35
    for name in names:
        arguments = set(getattr(suite, name).__code__.co_varnames)
        assert arguments & {"case", "oblong", "trained", "student"}, name


def test_without_pytest_one_sentence_says_what_to_install() -> None:
    program = "import sys; sys.modules['pytest'] = None; import fewstep.testing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert re.search(r"ConfigError: fewstep\.testing needs pytest; .*pip install 'fewstep\[testing\]'\.$", said)
