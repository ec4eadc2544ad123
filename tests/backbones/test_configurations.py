"""A component's configuration is whole: the file over the defaults of its class, and nothing impossible in it."""

import math
from typing import Any

import pytest

from fewstep.backbones.configurations import complete, pipeline_parts, without_infinities
from fewstep.errors import CheckpointError

KL = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8]}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
SANA = {"_class_name": "SanaTransformer2DModel"}
PIXART = {"_class_name": "PixArtTransformer2DModel"}
SD3 = {"_class_name": "SD3Transformer2DModel"}
UNET = {"_class_name": "UNet2DConditionModel"}
DPM = {"_class_name": "DPMSolverMultistepScheduler"}


def whole(config: dict[str, Any], class_name: str = "") -> dict[str, Any]:
    return dict(complete(config, class_name, place="The vae configuration of somebody/model"))


def test_what_a_file_leaves_out_is_its_classes_default() -> None:
    made = whole(KL)
    assert made["scaling_factor"] == 0.18215
    assert made["shift_factor"] is None
    assert made["block_out_channels"] == [8, 8]
    assert made["down_block_types"] == ["DownEncoderBlock2D"]


def test_a_key_that_the_class_does_not_take_stays_and_does_no_harm() -> None:
    assert whole({**DPM, "skip_prk_steps": True})["skip_prk_steps"] is True


def test_a_file_without_a_class_is_of_the_one_that_the_index_names() -> None:
    assert whole({"shift": 3.0}, "FlowMatchEulerDiscreteScheduler")["use_dynamic_shifting"] is False


def test_the_files_own_class_counts_before_the_indexs() -> None:
    made = whole(FLOW, "EulerDiscreteScheduler")
    assert made["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert "beta_start" not in made


def test_a_class_that_has_been_split_is_found_by_its_norm() -> None:
    made = whole({"_class_name": "Transformer2DModel", "norm_type": "ada_norm_single"})
    assert made["_class_name"] == "PixArtTransformer2DModel"
    assert made["use_additional_conditions"] is None
    assert made["num_layers"] == 28


def test_a_text_encoder_has_the_defaults_of_its_model_type() -> None:
    assert whole({"model_type": "clip_text_model"}, "CLIPTextModel")["max_position_embeddings"] == 77


@pytest.mark.parametrize("name", ["ModelOfTomorrow", "../../x", "logging", "StableDiffusionPipeline", 3, None, ["a"]])
def test_of_a_class_that_is_not_there_the_file_stays_as_it_is(name: Any) -> None:
    assert whole({"_class_name": name, "steps": 3}) == {"_class_name": name, "steps": 3}


def test_a_limit_of_minus_infinity_is_read_and_goes_without_saying() -> None:
    made = whole({**DPM, "lambda_min_clipped": -math.inf})
    assert made["lambda_min_clipped"] == -math.inf
    kept = without_infinities(made)
    assert "lambda_min_clipped" not in kept
    assert whole(kept) == made


def test_null_is_false_where_the_default_is() -> None:
    assert whole({**UNET, "upcast_attention": None})["upcast_attention"] is None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({**SANA, "num_layers": 10**30}, r"num_layers: 10+; at most 200 makes sense"),
        ({**SANA, "num_layers": 0}, "num_layers: 0; it must be at least 1"),
        ({**SANA, "num_layers": "20"}, "num_layers: '20'; it must be a whole number, such as 20"),
        ({**SANA, "num_layers": None}, "num_layers: null; it must be a whole number"),
        ({**SANA, "num_layers": 2.5}, r"num_layers: 2\.5; it must be a whole number"),
        ({**SANA, "num_layers": True}, "num_layers: true; it must be a whole number"),
        ({**SANA, "num_layers": [20]}, r"num_layers: \[20\]; it must be a whole number"),
        ({**SANA, "patch_size": 0}, "patch_size: 0; it must be at least 1"),
        ({**SANA, "sample_size": 10**9}, "sample_size: 1000000000; at most 8192"),
        ({**SANA, "in_channels": 10**6}, "in_channels: 1000000; at most 65536 makes sense"),
        ({**SANA, "num_layers": 201}, "num_layers: 201; at most 200 makes sense"),
        (
            {**SANA, "num_attention_heads": 300, "attention_head_dim": 300},
            "300; with 300 heads that is wider than 65536",
        ),
        ({**PIXART, "sample_size": 8192}, "sample_size: 8192; 4096 x 4096 positions of 1152 are too many"),
        ({**SD3, "pos_embed_max_size": 4096}, "pos_embed_max_size: 4096; 4096 x 4096 positions of 1152 are too many"),
        ({**SANA, "timestep_scale": math.nan}, "timestep_scale: nan; it must be a finite number"),
        ({**SANA, "guidance_embeds": 1}, "guidance_embeds: 1; it must be true or false"),
        ({**KL, "block_out_channels": []}, r"block_out_channels: \[\]; it must not be empty"),
        ({**KL, "block_out_channels": [8, 0]}, r"block_out_channels: \[8, 0\]; it must be at least 1"),
        (
            {**KL, "block_out_channels": [8, "8"]},
            r"block_out_channels: \[8, '8'\]; it must be a whole number or a list",
        ),
        ({**KL, "block_out_channels": [8] * 300}, "it has 300 entries, and at most 256 make sense"),
        ({**KL, "scaling_factor": 0.0}, r"scaling_factor: 0\.0; it must be above 0"),
        ({**KL, "scaling_factor": math.inf}, "scaling_factor: inf; it must be a finite number"),
        ({**KL, "shift_factor": "0.1"}, r"shift_factor: '0\.1'; it must be a number or null"),
        ({**FLOW, "shift": math.nan}, "shift: nan; it must be a finite number"),
        ({**FLOW, "shift": -3.0}, r"shift: -3\.0; it must be above 0"),
        ({**FLOW, "shift": 1e300}, r"shift: 1e\+300; at most 1e\+08"),
        ({**FLOW, "num_train_timesteps": 10**9}, "num_train_timesteps: 1000000000; at most 100000"),
        ({**FLOW, "base_shift": "x"}, "base_shift: 'x'; it must be a number or null"),
        ({**UNET, "attention_head_dim": [5, -1]}, r"attention_head_dim: \[5, -1\]; it must be at least 1"),
        ({**UNET, "sample_size": -64}, "sample_size: -64; it must be at least 1"),
        ({**DPM, "lambda_min_clipped": math.inf}, "lambda_min_clipped: inf; it must be a finite number"),
        ({**DPM, "trained_betas": ["x"]}, "trained_betas"),
        ({"model_type": "clip_text_model", "num_hidden_layers": 10**30}, "num_hidden_layers: 10+; at most 200"),
        ({"model_type": "qwen2", "text_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers: 1000000; at most"),
        ({"model_type": "clip_text_model", "max_position_embeddings": "x"}, "max_position_embeddings: 'x'"),
        ({"deep": [[[[[[[[1]]]]]]]]}, "deep: .* nested more than"),
    ],
)
def test_what_no_class_can_take_is_refused_in_one_sentence(config: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^The vae configuration of somebody/model has .*{told}.*Get the model"):
        whole(config)


@pytest.mark.parametrize(
    "value",
    [True, None, 3, "diffusers", [2, 5], [None, None], ["diffusers"], ["a", "b", "c"], [["a"], "b"], {"a": "b"}],
)
def test_only_pairs_of_texts_are_components(value: Any) -> None:
    assert pipeline_parts({"vae": ["diffusers", "AutoencoderKL"], "other": value}) == {
        "vae": ("diffusers", "AutoencoderKL")
    }
