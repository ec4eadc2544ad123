"""HPS v2.1 on a tiny open_clip network under its own names, whose cosine is worked out without transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.open_clip_names import to_transformers
from fewstep.scores.metrics.clip import Hpsv2
from fewstep.scores.networks.preprocessing import CLIP_MEAN, CLIP_STD
from tests.scores.tiny_clip import SIZE, TOKENIZER, OpenClip, clip_config
from tests.scores.tiny_pictures import metric_of, scores_of, write_pictures


def stored(network: OpenClip, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": value.clone() for name, value in network.state_dict().items()}


def loaded(source: Path, **settings: object) -> Hpsv2:
    metric = metric_of("hpsv2", source=str(source), tokenizer=str(TOKENIZER.parent), **settings)
    metric.check([])
    metric.load(torch.device("cpu"))
    return metric


def padded_by_hand(image: Image.Image) -> Tensor:
    """Pillow's bicubic to the longer side, in the middle of a black square, with CLIP's mean and deviation."""
    width, height = image.size
    small = np.asarray(image.resize((SIZE, height * SIZE // width), Image.Resampling.BICUBIC)) / 255
    square = np.zeros((SIZE, SIZE, 3))
    above = (SIZE - len(small)) // 2
    square[above : above + len(small)] = small
    return torch.from_numpy(((square - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)).float()


@torch.inference_mode()
def test_the_score_is_open_clips_own_cosine(tmp_path: Path) -> None:
    network = OpenClip()
    (tmp_path / "hps").mkdir()
    save_file(stored(network, "model."), tmp_path / "hps" / "model.safetensors")
    metric, pictures = loaded(tmp_path / "hps", resize="pillow"), write_pictures(tmp_path / "pictures", size=(32, 20))
    ids, mask = metric.clip.prompts.rows([picture.item.text for picture in pictures])
    expected = [
        network.cosine(padded_by_hand(picture.image()), row[keep.bool()].tolist())
        for picture, row, keep in zip(pictures, ids, mask, strict=True)
    ]
    assert scores_of(metric, pictures) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


@torch.inference_mode()
def test_the_published_pickle_gives_the_scores_of_the_safetensors(tmp_path: Path) -> None:
    network, pictures = OpenClip(), write_pictures(tmp_path / "pictures")
    save_file(stored(network), tmp_path / "plain.safetensors")
    torch.save({"epoch": 1, "state_dict": stored(network)}, tmp_path / "HPS_v2.1_compressed.pt")
    plain = scores_of(loaded(tmp_path / "plain.safetensors"), pictures)
    assert scores_of(loaded(tmp_path / "HPS_v2.1_compressed.pt", allow_pickle=True), pictures) == plain


def test_pickles_are_refused_until_they_are_allowed(tmp_path: Path) -> None:
    torch.save({"state_dict": stored(OpenClip())}, tmp_path / "HPS_v2.1_compressed.pt")
    with pytest.raises(ConfigError, match=r"is a pickle .*fewstep evaluate convert hpsv2 .* --allow-pickle"):
        loaded(tmp_path)


def test_float_pixels_and_8_bit_pixels_score_differently(tmp_path: Path) -> None:
    save_file(stored(OpenClip()), tmp_path / "model.safetensors")
    pictures = write_pictures(tmp_path / "pictures", size=(40, 40))
    floats, pillow = scores_of(loaded(tmp_path), pictures), scores_of(loaded(tmp_path, resize="pillow"), pictures)
    assert floats != pytest.approx(pillow, abs=1e-5) and floats == pytest.approx(pillow, abs=0.2)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
        ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
        ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
        ("visual.ln_post.weight", "vision_model.post_layernorm.weight"),
        ("visual.proj", "visual_projection.weight"),
        ("visual.transformer.resblocks.31.ln_1.weight", "vision_model.encoder.layers.31.layer_norm1.weight"),
        ("visual.transformer.resblocks.31.mlp.c_fc.bias", "vision_model.encoder.layers.31.mlp.fc1.bias"),
        ("visual.transformer.resblocks.0.attn.out_proj.bias", "vision_model.encoder.layers.0.self_attn.out_proj.bias"),
        ("transformer.resblocks.23.ln_2.bias", "text_model.encoder.layers.23.layer_norm2.bias"),
        ("transformer.resblocks.0.mlp.c_proj.weight", "text_model.encoder.layers.0.mlp.fc2.weight"),
        ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("ln_final.weight", "text_model.final_layer_norm.weight"),
        ("text_projection", "text_projection.weight"),
        ("logit_scale", "logit_scale"),
    ],
)
def test_an_original_name_becomes(name: str, new: str) -> None:
    assert list(to_transformers({name: torch.zeros(6, 2)})) == [new]


def test_the_joint_projection_is_split_in_three() -> None:
    joint = torch.arange(12.0).view(6, 2)
    parts = to_transformers({"transformer.resblocks.3.attn.in_proj_weight": joint})
    block = "text_model.encoder.layers.3.self_attn"
    assert {name: value.tolist() for name, value in parts.items()} == {
        f"{block}.q_proj.weight": joint[:2].tolist(),
        f"{block}.k_proj.weight": joint[2:4].tolist(),
        f"{block}.v_proj.weight": joint[4:].tolist(),
    }


def test_a_projection_is_transposed() -> None:
    assert to_transformers({"visual.proj": torch.tensor([[1.0, 2.0]])})["visual_projection.weight"].shape == (2, 1)


def test_a_weight_too_many_is_an_error_that_names_it(tmp_path: Path) -> None:
    save_file({**stored(OpenClip()), "visual.extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 weights of .* first visual\.extra"):
        loaded(tmp_path)


def test_a_missing_weight_is_an_error_that_names_it(tmp_path: Path) -> None:
    weights = stored(OpenClip())
    del weights["visual.ln_pre.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 weights of .* first vision_model\.pre_layrnorm\.bias"):
        loaded(tmp_path)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no HPS v2\.1: .*RE-N-Y/hpsv21"):
        loaded(tmp_path)


def test_the_shapes_of_the_real_checkpoint_tell_the_configuration_of_vit_h_14() -> None:
    from transformers import CLIPConfig, CLIPModel

    from fewstep.scores.checkpoints.open_clip_names import config_of

    vision = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
    text = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    real = CLIPConfig(
        projection_dim=1024,
        vision_config={**vision, "patch_size": 14, "image_size": 224, "hidden_act": "gelu", "projection_dim": 1024},
        text_config={**text, "vocab_size": 49408, "hidden_act": "gelu", "projection_dim": 1024},
    )
    with torch.device("meta"):
        told = config_of(CLIPModel(real).state_dict())
    assert {name: told["vision_config"][name] for name in (*vision, "patch_size", "image_size")} == {
        **vision,
        "patch_size": 14,
        "image_size": 224,
    }
    assert {name: told["text_config"][name] for name in text} == text
    assert told["projection_dim"] == 1024 and told["text_config"]["eos_token_id"] == 49407


def test_the_tiny_configuration_has_the_classes_size(tmp_path: Path) -> None:
    save_file(stored(OpenClip()), tmp_path / "model.safetensors")
    network = loaded(tmp_path).clip.network
    assert network.config.vision_config.image_size == clip_config().vision_config.image_size
