"""HPS v3 on a tiny Qwen2-VL of the real class stored by its published names, rated by hand."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2VLModel

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.metric import PromptItem
from fewstep.scores.metrics.hpsv3 import Hpsv3, to_transformers
from fewstep.scores.metrics.hpsv3_prompt import INSTRUCTION
from fewstep.scores.networks.preprocessing import CLIP_MEAN, CLIP_STD
from tests.scores.tiny_pictures import metric_of, scores_of, write_pictures
from tests.scores.tiny_qwen import IMAGE, REWARD, write_base, write_hpsv3


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hpsv3")


@pytest.fixture(scope="module")
def network(places: Path) -> tuple[Qwen2VLModel, dict[str, Tensor]]:
    write_base(places / "base")
    return write_hpsv3(places / "weights")


def loaded(places: Path, **settings: Any) -> Hpsv3:
    chosen = {"source": str(places / "weights"), "base": str(places / "base"), "dtype": "float32", **settings}
    metric = metric_of("hpsv3", **chosen)
    metric.check([])
    metric.load(torch.device("cpu"))
    return metric


def patches_by_hand(image: Image.Image, width: int, height: int) -> Tensor:
    """Patches of 14 pixels, twice in time, in blocks of 2 x 2."""
    small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) / 255
    pixels = ((small - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)
    rows = []
    for block_y in range(height // 28):
        for block_x in range(width // 28):
            for y in (2 * block_y, 2 * block_y + 1):
                for x in (2 * block_x, 2 * block_x + 1):
                    patch = pixels[:, y * 14 : y * 14 + 14, x * 14 : x * 14 + 14]
                    rows.append(np.stack([patch, patch], axis=1).reshape(-1))
    return torch.from_numpy(np.stack(rows)).float()


def text_by_hand(prompt: str, num_image_tokens: int) -> str:
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * num_image_tokens
        + "<|vision_end|>"
        + INSTRUCTION.replace("{text_prompt}", prompt)
        + "\nPlease provide the overall ratings of this image: <|Reward|>\n\nEND\n<|im_end|>\n<|im_start|>assistant\n"
    )


@torch.inference_mode()
def rating(
    places: Path, body: Qwen2VLModel, head: dict[str, Tensor], image: Image.Image, prompt: str, sides: tuple[int, int]
) -> float:
    """One picture through the real class, each token at the place where it stands, and the head as matrices."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(places / "base" / "tokenizer.json"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]})
    num_tokens = sides[0] * sides[1] // 28**2
    ids = torch.tensor([tokenizer(text_by_hand(prompt, num_tokens))["input_ids"]])
    grid = torch.tensor([[1, sides[1] // 14, sides[0] // 14]])
    seen = body.visual(patches_by_hand(image, *sides), grid_thw=grid).pooler_output
    embedded = body.language_model.embed_tokens(ids)
    embedded[0, ids[0] == IMAGE] = seen
    counted = torch.arange(ids.shape[1]).expand(3, 1, -1)
    x = body.language_model(inputs_embeds=embedded, position_ids=counted).last_hidden_state[0, ids[0] == REWARD][0]
    x = (head["rm_head.0.weight"] @ x + head["rm_head.0.bias"]).relu()
    x = (head["rm_head.3.weight"] @ x + head["rm_head.3.bias"]).relu()
    return float((head["rm_head.5.weight"] @ x + head["rm_head.5.bias"])[0])


def test_the_score_is_the_first_output_at_the_reward_token(
    places: Path, network: tuple[Qwen2VLModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    pictures = write_pictures(tmp_path, size=(100, 100))[:2]
    expected = [rating(places, *network, p.image(), p.item.text, (448, 448)) for p in pictures]
    assert scores_of(loaded(places), pictures) == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 1e-2


# both are 620.7 x 323.3 at 200,704 pixels: a picture that grows is rounded up, one that shrinks is rounded down
@pytest.mark.parametrize(("size", "sides"), [((192, 100), (644, 336)), ((960, 500), (616, 308))])
def test_a_wide_picture_keeps_its_shape_in_multiples_of_28(
    places: Path,
    network: tuple[Qwen2VLModel, dict[str, Tensor]],
    tmp_path: Path,
    size: tuple[int, int],
    sides: tuple[int, int],
) -> None:
    picture = write_pictures(tmp_path, size=size)[0]
    expected = rating(places, *network, picture.image(), picture.item.text, sides)
    assert scores_of(loaded(places), [picture]) == pytest.approx([expected], abs=1e-4)


@torch.inference_mode()
def test_positions_in_two_dimensions_would_give_another_score(
    places: Path, network: tuple[Qwen2VLModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    picture = write_pictures(tmp_path, size=(100, 100))[0]
    metric = loaded(places)
    body = metric.rater.network
    assert body is not None
    patches, grid = metric._patches(body, [picture], [picture.image()])
    ids, mask = metric.rater.prompts.rows([text_by_hand(picture.item.text, 256)])
    kinds = (ids == IMAGE).int()
    stock = body.body(
        input_ids=ids, attention_mask=mask, pixel_values=patches, image_grid_thw=grid, mm_token_type_ids=kinds
    ).last_hidden_state
    assert scores_of(metric, [picture])[0] != pytest.approx(float(body.head(stock[ids == REWARD])[0, 0]), abs=1e-3)


def test_a_short_prompt_beside_a_long_one_is_scored_as_alone(
    places: Path, network: tuple[Qwen2VLModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    pictures = write_pictures(tmp_path, size=(60, 60), prompts=("red", "a blue handwritten seven " * 5))
    metric = loaded(places)
    alone = [scores_of(metric, [picture])[0] for picture in pictures]
    assert scores_of(metric, pictures) == pytest.approx(alone, abs=1e-4)


def test_the_body_is_bfloat16_and_the_head_float32(
    places: Path, network: tuple[Qwen2VLModel, dict[str, Tensor]]
) -> None:
    rater = loaded(places, dtype="bfloat16").rater.network
    assert rater is not None
    assert {weight.dtype for weight in rater.body.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in rater.head.parameters()} == {torch.float32}


def test_the_instruction_is_the_published_one_to_the_last_space() -> None:
    # SHA-256 of INSTRUCTION in hpsv3 1.0.0
    published = "0393599dad45a971903d1d62a3acf9bad3ccccdafa7f40f680523419e1f68b7a"
    assert hashlib.sha256(INSTRUCTION.encode()).hexdigest() == published


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("visual.patch_embed.proj.weight", "visual.patch_embed.proj.weight"),
        ("visual.blocks.31.attn.qkv.bias", "visual.blocks.31.attn.qkv.bias"),
        ("visual.merger.ln_q.weight", "visual.merger.ln_q.weight"),
        ("visual.merger.mlp.2.bias", "visual.merger.mlp.2.bias"),
        ("model.embed_tokens.weight", "language_model.embed_tokens.weight"),
        ("model.layers.27.self_attn.q_proj.bias", "language_model.layers.27.self_attn.q_proj.bias"),
        ("model.layers.27.mlp.down_proj.weight", "language_model.layers.27.mlp.down_proj.weight"),
        ("model.norm.weight", "language_model.norm.weight"),
        ("rm_head.0.weight", "rm_head.0.weight"),
    ],
)
def test_an_original_name_becomes(name: str, new: str) -> None:
    assert list(to_transformers({name: torch.zeros(1)})) == [new]


def test_the_words_that_rating_does_not_need_are_left_out() -> None:
    assert to_transformers({"lm_head.weight": torch.zeros(1)}) == {}


@pytest.mark.parametrize("token", ["<|Reward|>", "<|image_pad|>"])
def test_a_prompt_that_contains_a_command_is_refused_before_anything_is_drawn(
    places: Path, network: tuple[Qwen2VLModel, dict[str, Tensor]], token: str
) -> None:
    metric = metric_of("hpsv3", source=str(places / "weights"), base=str(places / "base"))
    with pytest.raises(ConfigError, match=r"The prompt p7 contains <\|.*which hpsv3 reads as a command"):
        metric.check([PromptItem("p7", f"a {token} b")])


def test_a_tokenizer_of_another_size_is_refused(
    places: Path, network: tuple[Qwen2VLModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    weights = load_file(places / "weights" / "HPSv3.safetensors")
    weights["model.embed_tokens.weight"] = torch.zeros(300, 64)
    save_file(weights, tmp_path / "HPSv3.safetensors")
    with pytest.raises(CheckpointError, match=r"has 300 words and its tokenizer 262 with <\|Reward\|>"):
        loaded(places, source=str(tmp_path))


def test_weights_of_something_else_are_refused(places: Path, tmp_path: Path) -> None:
    write_base(places / "base")
    save_file({"weight": torch.zeros(2)}, tmp_path / "HPSv3.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no HPS v3: .*MizzenAI/HPSv3"):
        loaded(places, source=str(tmp_path))


def test_a_base_that_is_not_there_is_one_sentence_with_the_command(places: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ConfigError, match=r"hf download Qwen/Qwen2-VL-7B-Instruct config\.json tokenizer\.json`"):
        metric_of("hpsv3", source=str(tmp_path)).check([])
