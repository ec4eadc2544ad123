"""Already-distilled checkpoints are no teachers."""

from typing import Any

import pytest

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.refused import recognise, refuse
from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.backbones.source import Checkpoint
from fewstep.errors import ConfigError
from fewstep.planning.porting_matrix import PORTED, REFUSED, Target
from tests.backbones import tiny

SD3 = {"_class_name": "StableDiffusion3Pipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
FLUX = {"_class_name": "FluxPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}


def checkpoint(
    model: str = "somebody/model", *, index: dict[str, Any] = SD3, **components: dict[str, Any]
) -> Checkpoint:
    return Checkpoint(model, None, {"model_index": index, **components}, None)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("black-forest-labs/FLUX.1-schnell", "FLUX.1-schnell"),
        ("Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers", "SANA-Sprint"),
        ("stabilityai/stable-diffusion-3.5-large-turbo", "SD3.5-Large-Turbo"),
        ("stabilityai/sdxl-turbo", "SDXL-Turbo"),
        ("stabilityai/sd-turbo", "SD-Turbo"),
        ("SimianLuo/LCM_Dreamshaper_v7", "latent consistency model"),
        ("ByteDance/Hyper-SD", "Hyper-SD"),
        ("ByteDance/SDXL-Lightning", "Lightning"),
        ("byliutao/stable-diffusion-3-medium-turbo", "published CDM student"),
        ("byliutao/Longcat-Image-Turbo", "published CDM student"),
        ("Tongyi-MAI/Z-Image-Turbo", "step-distilled model by its name"),
        ("tianweiy/DMD2", "step-distilled model by its name"),
    ],
)
def test_distilled_repository_is_recognised_by_its_name(model: str, what: str) -> None:
    found = recognise(checkpoint(model))
    assert found is not None
    assert what in found.what


@pytest.mark.parametrize(("steps", "distilled"), [(8, True), (40, False)])
def test_a_short_grid_that_a_pipeline_brings_along_tells_that_it_is_distilled(steps: int, distilled: bool) -> None:
    index = {"_class_name": "QwenImage21Pipeline", "sample_sigmas": [1 - step / steps for step in range(steps)]}
    assert (recognise(checkpoint(index=index)) is not None) is distilled


@pytest.mark.parametrize("target", [row for row in REFUSED if row.family == "distilled"], ids=lambda row: row.name)
def test_every_distilled_row_of_the_matrix_is_refused_by_its_name(target: Target) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse(target.model, recognise(checkpoint(target.model, index={"_class_name": target.pipeline})))
    assert target.reason in str(refused.value)


@pytest.mark.parametrize("target", PORTED, ids=lambda row: row.name)
def test_no_teacher_of_the_matrix_is_refused_by_its_name(target: Target) -> None:
    network = {"guidance_embeds": target.family == "flux"}
    assert recognise(checkpoint(target.model, index={"_class_name": target.pipeline}, transformer=network)) is None


@pytest.mark.parametrize(
    "model",
    [
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "stabilityai/stable-diffusion-3.5-medium",
        "stabilityai/stable-diffusion-3.5-large",
        "black-forest-labs/FLUX.1-dev",
        "meituan-longcat/LongCat-Image",
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "Efficient-Large-Model/Sana_600M_1024px_diffusers",
        "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "Tongyi-MAI/Z-Image",
        "somebody/hyperrealism-sd3",
        "somebody/turbot-fish",
    ],
)
def test_teacher_is_not_taken_for_a_distilled_model(model: str) -> None:
    assert recognise(checkpoint(model)) is None


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (checkpoint(index={"_class_name": "SanaSprintPipeline"}), "SANA-Sprint"),
        (checkpoint(index={**SD3, "scheduler": ["diffusers", "LCMScheduler"]}), "latent consistency"),
        (checkpoint(index={**SD3, "scheduler": ["diffusers", "SCMScheduler"]}), "SANA-Sprint"),
        (checkpoint(unet={"time_cond_proj_dim": 256}), "latent consistency"),
        (checkpoint(index={"_class_name": "SanaPipeline"}, transformer={"guidance_embeds": True}), "SANA-Sprint"),
        (checkpoint(index={"_class_name": "Flux2KleinPipeline", "is_distilled": True}), "FLUX.2 klein"),
        (
            checkpoint(index=FLUX, transformer={"guidance_embeds": False}, scheduler={"use_dynamic_shifting": False}),
            "FLUX.1-schnell",
        ),
        (
            checkpoint(transformer={"_name_or_path": "stabilityai/stable-diffusion-3.5-large-turbo"}),
            "SD3.5-Large-Turbo",
        ),
        (checkpoint(unet={"_name_or_path": "/cache/models--stabilityai--sdxl-turbo/snapshots/f4b/unet"}), "SDXL-Turbo"),
    ],
)
def test_renamed_folder_is_recognised_by_its_configuration(found: Checkpoint, what: str) -> None:
    distilled = recognise(found)
    assert distilled is not None
    assert what in distilled.what


@pytest.mark.parametrize(
    "teacher",
    [
        checkpoint(index=FLUX, transformer={"guidance_embeds": True}, scheduler={"use_dynamic_shifting": True}),
        checkpoint(unet={"time_cond_proj_dim": None}),
        checkpoint(transformer={"_name_or_path": "/data/lightning/experiments/sd3"}),
        checkpoint(transformer={"_name_or_path": "../lcm/sd3/transformer"}),
    ],
)
def test_configuration_of_a_teacher_is_not_recognised(teacher: Checkpoint) -> None:
    assert recognise(teacher) is None


def test_refusal_says_what_it_is_why_and_what_instead() -> None:
    with pytest.raises(ConfigError) as refused:
        refuse("black-forest-labs/FLUX.1-schnell", recognise(checkpoint("black-forest-labs/FLUX.1-schnell")))
    assert str(refused.value) == (
        "black-forest-labs/FLUX.1-schnell is FLUX.1-schnell, already distilled to 1 to 4 steps: it has few steps left "
        "to save and cannot be the teacher. Use black-forest-labs/FLUX.1-dev instead; if it only looks like one, set "
        "backbone.allow_distilled=true."
    )


def test_our_own_student_is_recognised() -> None:
    facts = ModelFacts(role="student", backbone={"kind": "sd3"})
    found = recognise(Checkpoint("out/student", None, {"model_index": SD3}, facts))
    assert found is not None
    assert found.what == "a student that fewstep exported"


def test_only_the_folders_own_name_counts(tmp_path_factory: pytest.TempPathFactory) -> None:
    above = tmp_path_factory.mktemp("sdxl-turbo")
    tiny.save(tiny.sd3_pipeline(), above / "teacher")
    tiny.save(tiny.sd3_pipeline(), above / "sd3-turbo")
    assert isinstance(create_model_adapter(above / "teacher"), SD3Adapter)
    with pytest.raises(ConfigError, match="sd3-turbo is a step-distilled model by its name"):
        create_model_adapter(above / "sd3-turbo")


def test_override_accepts_a_model_that_only_looks_distilled(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("models") / "sd3-turbo")
    config = SD3Adapter.config_class(model=str(folder), height=16, width=16, allow_distilled=True)
    assert isinstance(create_model_adapter(folder, config), SD3Adapter)


def test_distilled_model_may_be_opened_to_draw(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("models") / "sd3-turbo")
    assert isinstance(create_model_adapter(folder, as_teacher=False), SD3Adapter)


def test_a_repository_is_refused_by_its_name_before_anything_is_fetched() -> None:
    # offline, so that opening the repository would be an error of its own
    with pytest.raises(ConfigError, match="cannot be the teacher"):
        create_model_adapter("stabilityai/stable-diffusion-3.5-large-turbo")
