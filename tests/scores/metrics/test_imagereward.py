"""ImageReward on a tiny network under its published names, whose reward is worked out without transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.blip_names import config_of, to_transformers
from fewstep.scores.metric import Picture, PromptItem
from fewstep.scores.metrics.imagereward import ImageReward
from fewstep.scores.networks.preprocessing import CLIP_MEAN, CLIP_STD
from tests.scores.tiny_blip import SIZE, WORDS, OwnImageReward, write_tokenizer
from tests.scores.tiny_pictures import metric_of, scores_of, write_pictures


def stored(network: OwnImageReward) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def loaded(source: Path, **settings: object) -> ImageReward:
    tokenizer = str(write_tokenizer(source.parent / "bert"))
    metric = metric_of("imagereward", source=str(source), tokenizer=tokenizer, **settings)
    metric.check([])
    metric.load(torch.device("cpu"))
    return metric


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[OwnImageReward, Path]:
    network = OwnImageReward()
    torch.save(stored(network), tmp_path / "ImageReward.pt")
    return network, tmp_path / "ImageReward.pt"


def pixels_by_hand(image: Image.Image) -> Tensor:
    """Shorter side to the network's size with Pillow's bicubic, the middle of the longer side."""
    width = SIZE * image.width // image.height
    left = round((width - SIZE) / 2)
    small = np.asarray(image.resize((width, SIZE), Image.Resampling.BICUBIC))[:, left : left + SIZE] / 255
    return torch.from_numpy(((small - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)).float()


def ids_by_hand(prompt: str) -> list[int]:
    return [2, *(WORDS.index(word) for word in prompt.split()), 3]


@torch.inference_mode()
def test_the_score_is_the_normalised_reward_of_the_published_network(
    checkpoint: tuple[OwnImageReward, Path], tmp_path: Path
) -> None:
    network, source = checkpoint
    pictures = write_pictures(tmp_path / "pictures", size=(50, 40))
    raw = [network.reward(pixels_by_hand(p.image()), ids_by_hand(p.item.text)) for p in pictures]
    expected = [(reward - 0.16717362830052426) / 1.0333394966054072 for reward in raw]
    assert scores_of(loaded(source, allow_pickle=True), pictures) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


@torch.inference_mode()
def test_a_long_prompt_is_cut_at_35_tokens_with_its_end_kept(
    checkpoint: tuple[OwnImageReward, Path], tmp_path: Path
) -> None:
    network, source = checkpoint
    picture = write_pictures(tmp_path / "pictures", size=(40, 40))[0]
    long = Picture(picture.path, PromptItem("long", "red " * 60), 0)
    raw = network.reward(pixels_by_hand(picture.image()), [2, *[WORDS.index("red")] * 33, 3])
    score = scores_of(loaded(source, allow_pickle=True), [long])[0]
    assert score == pytest.approx((raw - 0.16717362830052426) / 1.0333394966054072, abs=1e-5)


def test_a_score_does_not_depend_on_the_other_pictures_of_the_batch(
    checkpoint: tuple[OwnImageReward, Path], tmp_path: Path
) -> None:
    metric, pictures = loaded(checkpoint[1], allow_pickle=True), write_pictures(tmp_path / "pictures")
    alone = [scores_of(metric, [picture])[0] for picture in pictures]
    assert scores_of(metric, pictures) == pytest.approx(alone, abs=1e-5)


def test_the_pickle_is_refused_until_it_is_allowed(checkpoint: tuple[OwnImageReward, Path]) -> None:
    with pytest.raises(ConfigError, match=r"ImageReward\.pt\), a kind of file that can hold code: convert it once"):
        loaded(checkpoint[1])


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("blip.visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
        ("blip.visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
        ("blip.visual_encoder.patch_embed.proj.bias", "vision_model.embeddings.patch_embedding.bias"),
        ("blip.visual_encoder.norm.weight", "vision_model.post_layernorm.weight"),
        ("blip.visual_encoder.blocks.23.norm1.weight", "vision_model.encoder.layers.23.layer_norm1.weight"),
        ("blip.visual_encoder.blocks.23.norm2.bias", "vision_model.encoder.layers.23.layer_norm2.bias"),
        ("blip.visual_encoder.blocks.0.attn.qkv.weight", "vision_model.encoder.layers.0.self_attn.qkv.weight"),
        ("blip.visual_encoder.blocks.0.attn.proj.bias", "vision_model.encoder.layers.0.self_attn.projection.bias"),
        ("blip.visual_encoder.blocks.0.mlp.fc2.weight", "vision_model.encoder.layers.0.mlp.fc2.weight"),
        ("blip.text_encoder.embeddings.LayerNorm.bias", "text_model.embeddings.LayerNorm.bias"),
        (
            "blip.text_encoder.encoder.layer.11.crossattention.self.key.weight",
            "text_model.encoder.layer.11.crossattention.self.key.weight",
        ),
        ("mlp.layers.7.bias", "mlp.layers.7.bias"),
    ],
)
def test_an_original_name_becomes(name: str, new: str) -> None:
    assert list(to_transformers({name: torch.zeros(1)})) == [new]


@pytest.mark.parametrize(
    "name",
    ["blip.vision_proj.weight", "blip.text_proj.bias", "blip.text_encoder.embeddings.position_ids"],
)
def test_what_the_reward_does_not_use_is_left_out(name: str) -> None:
    assert to_transformers({name: torch.zeros(1)}) == {}


def test_the_shapes_of_the_real_checkpoint_tell_its_configuration() -> None:
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (1024, 3, 16, 16),
        "vision_model.embeddings.position_embedding": (1, 197, 1024),
        **{f"vision_model.encoder.layers.{n}.mlp.fc1.weight": (4096, 1024) for n in range(24)},
        "text_model.embeddings.word_embeddings.weight": (30524, 768),
        "text_model.embeddings.position_embeddings.weight": (512, 768),
        **{f"text_model.encoder.layer.{n}.crossattention.self.key.weight": (768, 1024) for n in range(12)},
        **{f"text_model.encoder.layer.{n}.intermediate.dense.weight": (3072, 768) for n in range(12)},
    }
    told = config_of({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    vision, text = told["vision_config"], told["text_config"]
    assert (vision["image_size"], vision["num_hidden_layers"], vision["num_attention_heads"]) == (224, 24, 16)
    assert (text["num_hidden_layers"], text["num_attention_heads"], text["encoder_hidden_size"]) == (12, 12, 1024)
    assert (vision["layer_norm_eps"], text["layer_norm_eps"]) == (1e-6, 1e-12)


def test_a_head_of_another_shape_is_refused(checkpoint: tuple[OwnImageReward, Path], tmp_path: Path) -> None:
    weights = stored(checkpoint[0])
    del weights["mlp.layers.7.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not hold the head of imagereward: 5 linear layers named mlp\.lay"):
        loaded(tmp_path / "model.safetensors")


def test_a_missing_weight_is_an_error_that_names_it(checkpoint: tuple[OwnImageReward, Path], tmp_path: Path) -> None:
    weights = stored(checkpoint[0])
    del weights["blip.text_encoder.embeddings.LayerNorm.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 weights of .* first embeddings\.LayerNorm\.bias"):
        loaded(tmp_path / "model.safetensors")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no ImageReward: .*zai-org/ImageReward"):
        loaded(tmp_path / "model.safetensors")
