"""What published files hold that a tiny pipeline saved today does not, trap by trap: opening is all it takes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.backbones import adapter_class, create_model_adapter
from fewstep.backbones.configurations import complete, pipeline_parts
from fewstep.backbones.refused import recognise
from fewstep.backbones.source import Checkpoint, open_checkpoint
from fewstep.backbones.vp_schedule import VPSchedule
from fewstep.core.vp import sigma_from_signal
from fewstep.errors import CheckpointError, ConfigError
from tests.published_twins import PUBLISHED, TWINS, raw

SD15, SD21 = "runwayml--stable-diffusion-v1-5", "stabilityai--stable-diffusion-2-1"
BASE21 = f"{SD21}-base"
SDXL, SD3 = "stabilityai--stable-diffusion-xl-base-1.0", "stabilityai--stable-diffusion-3-medium-diffusers"
SD35M, SD35L = (f"stabilityai--stable-diffusion-3.5-{size}" for size in ("medium", "large"))
FLUX, SANA = "black-forest-labs--FLUX.1-dev", "Efficient-Large-Model--SANA1.5_1.6B_1024px_diffusers"
WAN, QWEN, KREA = "Wan-AI--Wan2.1-T2V-14B-Diffusers", "Qwen--Qwen-Image", "krea--Krea-2-Raw"
KLEIN, KLEIN_BASE = (f"black-forest-labs--FLUX.2-klein-{name}" for name in ("4B", "base-4B"))
Z_BASE, Z_TURBO = "Tongyi-MAI--Z-Image", "Tongyi-MAI--Z-Image-Turbo"
COGVIDEO, PIXART, LONGCAT = (
    *("THUDM--CogVideoX-2b", "PixArt-alpha--PixArt-Sigma-XL-2-1024-MS", "meituan-longcat--LongCat-Image"),
)


def opened(name: str) -> Checkpoint:
    return open_checkpoint(str(PUBLISHED / name))


def copied(name: str, folder: Path, file: str = "", **changes: Any) -> Path:
    """The published JSON files, one of them changed."""
    made = Path(shutil.copytree(PUBLISHED / name, folder / "model"))
    if file:
        path = made / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return made


@pytest.mark.parametrize("name", [KREA, SDXL, SD21, "black-forest-labs--FLUX.2-klein-4B"])
def test_settings_beside_the_components_are_no_components(name: str) -> None:
    index = raw(name, "model_index.json")
    plain = {key for key, value in index.items() if not (isinstance(value, list) and isinstance(value[0], str))}
    assert plain
    assert not plain & pipeline_parts(index).keys()
    assert not plain & opened(name).components.keys()


def test_a_component_of_an_unknown_library_is_opened() -> None:
    assert pipeline_parts(raw(SD15, "model_index.json"))["safety_checker"][0] == "stable_diffusion"
    assert "vision_config" in opened(SD15).components["safety_checker"]


def test_the_class_in_the_index_need_not_be_the_one_in_the_component() -> None:
    assert pipeline_parts(raw(Z_TURBO, "model_index.json"))["text_encoder"][1] == "Qwen3Model"
    assert opened(Z_TURBO).components["text_encoder"]["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize(("name", "distilled"), [(KLEIN, True), (KLEIN_BASE, False), (KREA, False)])
def test_a_missing_flag_is_as_good_as_a_false_one(name: str, distilled: bool) -> None:
    assert (recognise(opened(name)) is not None) is distilled


def test_folders_that_the_index_does_not_name_are_left_alone() -> None:
    assert (PUBLISHED / SDXL / "vae_1_0" / "config.json").is_file()
    assert "vae_1_0" not in opened(SDXL).components


def test_two_models_with_one_index_are_told_by_their_networks() -> None:
    medium, large = opened(SD35M), opened(SD35L)
    assert medium.components["model_index"] == large.components["model_index"]
    assert medium.components["transformer"]["dual_attention_layers"] == list(range(13))
    assert large.components["transformer"]["dual_attention_layers"] == []
    assert opened(SD3).components["transformer"]["qk_norm"] is None


def test_a_limit_of_minus_infinity_is_a_number_there() -> None:
    published = (PUBLISHED / SANA / "scheduler" / "scheduler_config.json").read_text()
    assert '"lambda_min_clipped": -Infinity' in published
    assert component_of(SANA, "scheduler")["lambda_min_clipped"] == -math.inf


def component_of(name: str, component: str) -> dict[str, Any]:
    file = "scheduler_config.json" if component == "scheduler" else "config.json"
    return dict(complete(raw(name, f"{component}/{file}"), place=name))


def test_a_static_shift_is_the_files_and_its_absence_is_one() -> None:
    assert raw(SD3, "scheduler/scheduler_config.json").keys() == {
        *("_class_name", "_diffusers_version", "num_train_timesteps", "shift")
    }
    scheduler = opened(SD3).components["scheduler"]
    assert (scheduler["shift"], scheduler["use_dynamic_shifting"], scheduler["shift_terminal"]) == (3.0, False, None)


def test_a_stated_shift_is_not_used_where_shifting_is_dynamic() -> None:
    """FLUX.1-dev states 3.0 beside use_dynamic_shifting: at 1024 px the shift is exp(1.15)."""
    sigma = create_model_adapter(str(PUBLISHED / FLUX)).to_sigma(torch.tensor([0.5]))
    shift = math.exp(1.15)
    torch.testing.assert_close(sigma, torch.tensor([shift / (1 + shift)]))


@pytest.mark.parametrize(("name", "sigma"), [(Z_BASE, 6 / 7), (Z_TURBO, 3 / 4)])
def test_two_models_that_differ_by_their_shift_alone_have_two_clocks(name: str, sigma: float, tmp_path: Path) -> None:
    adapter = create_model_adapter(
        copied(SD3, tmp_path, "scheduler/scheduler_config.json", **component_of(name, "scheduler"))
    )
    torch.testing.assert_close(adapter.to_sigma(torch.tensor([0.5])), torch.tensor([sigma]))


def test_an_empty_list_and_null_are_settings_of_a_scheduler() -> None:
    scheduler = component_of(WAN, "scheduler")
    assert (scheduler["disable_corrector"], scheduler["solver_p"], scheduler["flow_shift"]) == ([], None, 3.0)
    assert (scheduler["_class_name"], scheduler["prediction_type"]) == ("UniPCMultistepScheduler", "flow_prediction")


def test_the_objective_is_not_in_the_class_name() -> None:
    sana = component_of(SANA, "scheduler")
    assert (sana["_class_name"], sana["flow_shift"], sana["prediction_type"]) == (
        *("DPMSolverMultistepScheduler", 3.0, "flow_prediction"),
    )
    adapter = adapter_class("sana")
    components = {
        "model_index": {"_class_name": "SanaPipeline"},
        **{name: component_of(SANA, name) for name in ("scheduler", "vae", "transformer")},
    }
    made = adapter(adapter.config_class(kind="sana", model=SANA), components)
    torch.testing.assert_close(made.to_sigma(torch.tensor([0.5])), torch.tensor([0.75]))  # shift 3, its betas unread


def test_near_equal_files_predict_different_things() -> None:
    assert create_model_adapter(str(PUBLISHED / SD21)).schedule.prediction == "v_prediction"  # type: ignore[attr-defined]
    assert create_model_adapter(str(PUBLISHED / BASE21)).schedule.prediction == "epsilon"  # type: ignore[attr-defined]


def test_levels_of_cogvideox_are_moved_on_betas_that_end_without_signal() -> None:
    """Its snr_shift_scale divides every signal-to-noise ratio, before the last one becomes zero."""
    from diffusers import CogVideoXDDIMScheduler

    scheduler = component_of(COGVIDEO, "scheduler")
    assert (scheduler["rescale_betas_zero_snr"], scheduler["set_alpha_to_one"]) == (True, True)
    schedule = VPSchedule(scheduler, model=COGVIDEO)
    assert 0.999999 < schedule.sigma_max < 1.0
    signal = CogVideoXDDIMScheduler.from_config(scheduler).alphas_cumprod[[749, 499, 249]].double().sqrt()
    moved = schedule.sigma(torch.tensor([0.75, 0.5, 0.25]))
    torch.testing.assert_close(moved, sigma_from_signal(signal).float(), rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"moves every noise level by snr_shift_scale=3\.0"):
        schedule.deterministic_scheduler()


def test_a_key_of_another_scheduler_does_no_harm() -> None:
    """The DDIM file of Stable Diffusion 2.1 carries a key of PNDM."""
    scheduler = opened(SD21).components["scheduler"]
    assert (scheduler["_class_name"], scheduler["skip_prk_steps"]) == ("DDIMScheduler", True)
    assert create_model_adapter(str(PUBLISHED / SD21)).student_scheduler([1.0]).config.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("name", "scale", "shift"),
    [
        (SD15, 0.18215, None),
        (SD21, 0.18215, None),
        (SDXL, 0.13025, None),
        (SANA, 0.41407, None),
        (SD3, 1.5305, 0.0609),
        (FLUX, 0.3611, 0.1159),
        (Z_TURBO, 0.3611, 0.1159),
        (COGVIDEO, 1.15258426, None),
    ],
)
def test_every_form_of_scaling_latents_is_read(name: str, scale: float, shift: float | None) -> None:
    made = component_of(name, "vae")
    assert (made["scaling_factor"], made.get("shift_factor")) == (scale, shift)


@pytest.mark.parametrize("component", [WAN, QWEN, KLEIN, COGVIDEO])
def test_latents_of_another_form_are_refused_where_a_network_meets_them(component: str, tmp_path: Path) -> None:
    vae = raw(component, "vae/config.json")
    folder = copied(SDXL, tmp_path)
    (folder / "vae" / "config.json").write_text(json.dumps(vae))
    with pytest.raises(ConfigError, match=rf"The vae of .* is a {vae['_class_name']}, but .* drives a AutoencoderKL"):
        create_model_adapter(folder)


def test_normalised_latents_are_refused_for_every_family(tmp_path: Path) -> None:
    folder = copied(SD15, tmp_path, "vae/config.json", latents_mean=[0.0] * 4)
    with pytest.raises(ConfigError, match="normalises latents by latents_mean"):
        create_model_adapter(folder)


def test_null_and_absent_mean_the_same(tmp_path: Path) -> None:
    nulls = {"shift_factor": None, "latents_mean": None, "latents_std": None}
    folder = copied(SD15, tmp_path, "vae/config.json", **nulls)
    assert open_checkpoint(str(folder)).components["vae"] == opened(SD15).components["vae"]


@pytest.mark.parametrize("name", [WAN, QWEN, KREA])
def test_a_published_misspelling_is_the_key_of_the_class(name: str) -> None:
    vae = raw(name, "vae/config.json")
    assert "temperal_downsample" in complete({"_class_name": vae["_class_name"]}, place=name)
    assert component_of(name, "vae")["temperal_downsample"] == vae["temperal_downsample"] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "quantised"), [(SD15, True), (SD21, True), (SDXL, True), (SD3, False), (FLUX, False), (Z_TURBO, False)]
)
def test_layers_around_the_latents_are_there_unless_the_file_says_otherwise(name: str, quantised: bool) -> None:
    vae = component_of(name, "vae")
    assert (vae["use_quant_conv"], vae["use_post_quant_conv"]) == (quantised, quantised)
    assert vae["mid_block_add_attention"] is True


@pytest.mark.parametrize(
    ("kind", "name", "factor", "channels"),
    [("sana", SANA, 32, 32), ("sd15", SD15, 8, 4), ("sdxl", SDXL, 8, 4), ("sd3", SD3, 8, 16), ("flux", FLUX, 8, 16)],
)
def test_pixels_of_a_latent_are_counted_as_the_family_does(kind: str, name: str, factor: int, channels: int) -> None:
    vae = component_of(name, "vae")
    assert adapter_class(kind).vae_factor(vae) == factor  # type: ignore[attr-defined]
    assert vae["latent_channels"] == channels


def test_lists_in_lists_and_empty_ones_are_kept() -> None:
    assert component_of(SANA, "vae")["encoder_qkv_multiscales"] == [[], [], [], [5], [5], [5]]
    assert component_of(WAN, "vae")["attn_scales"] == []


def test_the_size_of_a_picture_is_the_networks_and_not_the_vaes() -> None:
    """The VAE of Stable Diffusion 2.1 base says 768, and its UNet 64 latents."""
    adapter = create_model_adapter(str(PUBLISHED / BASE21))
    assert adapter.components["vae"]["sample_size"] == 768
    assert (adapter.config.height, adapter.config.width) == (512, 512)


def test_more_channels_out_than_in_are_no_more_latents() -> None:
    adapter = create_model_adapter(str(PUBLISHED / PIXART))
    assert adapter.components["transformer"]["out_channels"] == 8
    assert adapter.latent_shape(1024, 1024) == (4, 128, 128)


@pytest.mark.parametrize(("name", "kind"), [(SD15, int), (SD21, list), (SDXL, list)])
def test_heads_are_a_number_or_a_list(name: str, kind: type) -> None:
    assert isinstance(opened(name).components["unet"]["attention_head_dim"], kind)


@pytest.mark.parametrize("name", [QWEN, "lodestones--Chroma1-HD"])
def test_keys_that_the_class_no_longer_takes_are_kept(name: str) -> None:
    key = "pooled_projection_dim" if name == QWEN else "approximator_in_factor"
    assert key in opened(name).components["transformer"]


def test_keys_that_the_class_got_later_have_its_defaults() -> None:
    assert opened(FLUX).components["transformer"]["axes_dims_rope"] == [16, 56, 56]


def test_the_file_counts_where_the_class_defaults_are_of_another_model() -> None:
    layers = ("num_layers", "num_single_layers")
    published = component_of(LONGCAT, "transformer")
    default = complete({"_class_name": published["_class_name"]}, place=LONGCAT)
    assert [published[name] for name in layers] == [10, 20]
    assert [default[name] for name in layers] == [19, 38]


def test_a_publishers_folder_is_never_followed(tmp_path: Path) -> None:
    elsewhere = copied(SDXL, tmp_path / "elsewhere")
    folder = copied(SD15, tmp_path, "unet/config.json", _name_or_path=str(elsewhere / "unet"))
    adapter = create_model_adapter(folder)
    assert adapter.kind == "sd15"
    assert adapter.components["unet"]["block_out_channels"] == [320, 640, 1280, 1280]


def test_order_of_keys_and_the_last_newline_mean_nothing(tmp_path: Path) -> None:
    folder = copied(SD3, tmp_path)
    for path in folder.rglob("*.json"):
        value = json.loads(path.read_text())
        path.write_text(json.dumps(dict(reversed(value.items()))))
    assert open_checkpoint(str(folder)).components == opened(SD3).components


@pytest.mark.parametrize("name", sorted(set(TWINS) - {SANA, LONGCAT}))
def test_a_published_checkpoint_is_no_distilled_one(name: str) -> None:
    assert recognise(opened(name)) is None


@pytest.mark.parametrize(
    ("name", "file", "changes", "told"),
    [
        (SD15, "scheduler/scheduler_config.json", {"beta_start": 5.0, "beta_end": 6.0}, "are no noise schedule"),
        (SD15, "scheduler/scheduler_config.json", {"trained_betas": [0.0] * 1000}, "are no noise schedule"),
        (SD15, "scheduler/scheduler_config.json", {"num_train_timesteps": 1}, "are no noise schedule"),
        (FLUX, "scheduler/scheduler_config.json", {"max_image_seq_len": 256}, "which is no line"),
        (FLUX, "scheduler/scheduler_config.json", {"base_shift": None}, "which is no line"),
        (FLUX, "scheduler/scheduler_config.json", {"max_shift": 1e7}, "no level is left between data and noise"),
        (SD15, "model_index.json", {"vae": [None, None]}, "has no vae; a StableDiffusionPipeline needs"),
        (SD15, "model_index.json", {"scheduler": [None, None]}, "has no scheduler"),
        (SD15, "model_index.json", {"../up": ["diffusers", "AutoencoderKL"]}, r"component '\.\./up', which is no"),
        (SD15, "model_index.json", {"_class_name": None}, "is a null"),
        (SD15, "model_index.json", {"_class_name": ["a", "b"]}, r"is a \['a', 'b'\]"),
        (SD15, "unet/config.json", {"_class_name": "UNet3DConditionModel"}, "is a UNet3DConditionModel, but"),
        (SD15, "unet/config.json", {"_class_name": None}, "The unet of .* is a null, but"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_sentence(
    name: str, file: str, changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = copied(name, tmp_path, file, **changes)
    with pytest.raises((ConfigError, CheckpointError), match=told) as caught:
        create_model_adapter(folder).to_sigma(torch.tensor([1.0, 0.5]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "null", "3", "[" * 100_000, '{"a": ', "\x00"])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_json_of_the_wrong_shape_is_one_sentence(file: str, content: str, tmp_path: Path) -> None:
    folder = copied(SD15, tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{file} cannot be used: .*Get the model again"):
        open_checkpoint(str(folder))
