"""What is particular to Qwen-Image-2.1: guidance inside the teacher, a grid of its own, one prompt at a time."""

import json
from pathlib import Path

import pytest
import torch

from fewstep.backbones import create_model_adapter
from fewstep.config import load_recipe
from fewstep.errors import ConfigError
from fewstep.export import export_student
from fewstep.testing.case import Case, open_case, save
from tests.backbones.families import FAMILIES

NAME = "qwen-image-2.1"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = FAMILIES[NAME]
    return open_case(family, save(family, tmp_path_factory.mktemp("pipeline") / "teacher"), family.size)


@pytest.mark.parametrize(
    ("override", "without"),
    [
        ("terms.ca={scale: 3}", "terms.ca=null"),
        ("terms.dm.guidance_scale=4", "terms.dm.guidance_scale=1"),
        ("terms.cdm.guidance_scale=4", "terms.cdm.guidance_scale=1"),
        ("terms.isg={}", "terms.isg.guidance={low: 1, high: 1}"),
    ],
)
def test_a_term_that_follows_guidance_is_refused_before_anything_is_loaded(override: str, without: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_recipe(NAME, [override])
    assert "Qwen-Image-2.1 was distilled together with its guidance" in str(refused.value)
    assert without in str(refused.value)
    assert load_recipe(NAME, [override, without]).config.terms.ca is None


def test_a_picture_of_the_teacher_that_states_no_scale_is_unguided(case: Case) -> None:
    assert case.adapter.guidance.default_scale(type(case.pipeline)) == case.adapter.guidance.off


def test_a_size_that_the_pipeline_would_round_is_refused(case: Case) -> None:
    with pytest.raises(ConfigError, match="multiples of 32"):
        case.adapter.latent_shape(48, 32)


def test_an_exported_student_draws_its_own_steps_when_the_call_states_none(case: Case, tmp_path: Path) -> None:
    done = export_student(case.adapter, case.network, tmp_path / "student", levels=(1.0, 0.5))
    sigmas = case.adapter.to_sigma(torch.tensor([1.0, 0.5])).tolist()
    index = json.loads((done.folder / "model_index.json").read_text())
    assert index["sample_sigmas"] == pytest.approx(sigmas, abs=1e-6)
    pipeline = create_model_adapter(done.folder, as_teacher=False).load_pipeline()
    pipeline("a red cat", height=32, width=32, output_type="latent")
    assert pipeline.scheduler.sigmas.tolist() == pytest.approx([*sigmas, 0.0], abs=1e-6)


def test_the_cache_of_keys_changes_no_picture(case: Case) -> None:
    case.require_same_latents(case.stock(use_kv_cache=False), case.stock())
