"""The aesthetic predictor on a tiny CLIP: five linear layers without activations are one affine map, folded here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.metrics.aesthetic import Aesthetic
from tests.scores.tiny_clip import SIZE, write_clip
from tests.scores.tiny_pictures import metric_of, scores_of, write_pictures

# positions of the linear layers among the dropouts of the published head
NUMBERS, WIDTHS = (0, 2, 4, 6, 7), (24, 20, 16, 12, 8, 1)


def random_head(prefix: str = "") -> dict[str, Tensor]:
    torch.manual_seed(5)
    head = {}
    for number, inner, outer in zip(NUMBERS, WIDTHS, WIDTHS[1:], strict=False):
        head[f"{prefix}layers.{number}.weight"] = torch.randn(outer, inner)
        head[f"{prefix}layers.{number}.bias"] = torch.randn(outer)
    return head


def folded(head: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The head as one row and one number, in float64."""
    row, rest = torch.eye(WIDTHS[0], dtype=torch.float64), torch.zeros(WIDTHS[0], dtype=torch.float64)
    for number in NUMBERS:
        weight, bias = head[f"layers.{number}.weight"].double(), head[f"layers.{number}.bias"].double()
        row, rest = weight @ row, weight @ rest + bias
    return row, rest


def loaded(source: Path, clip: Path, **settings: Any) -> Aesthetic:
    metric = metric_of("aesthetic", source=str(source), clip=str(clip), **settings)
    metric.check([])
    metric.load(torch.device("cpu"))
    return metric


@torch.inference_mode()
def by_hand(model: CLIPModel, pictures: list[Any]) -> list[float]:
    prepare = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    row, rest = folded(random_head())
    pixels = torch.cat([prepare(p.image(), return_tensors="pt")["pixel_values"] for p in pictures])
    seen = model.get_image_features(pixel_values=pixels).pooler_output.double()
    ratings: list[float] = (seen / seen.norm(dim=-1, keepdim=True) @ row.T + rest).flatten().tolist()
    return ratings


@pytest.mark.parametrize("prefix", ["", "mlp.", "model."])
def test_the_score_is_the_affine_map_of_the_vector_of_length_one(tmp_path: Path, prefix: str) -> None:
    model, pictures = write_clip(tmp_path / "clip"), write_pictures(tmp_path / "pictures")
    save_file(random_head(prefix), tmp_path / "model.safetensors")
    expected = by_hand(model, pictures)
    assert scores_of(loaded(tmp_path / "model.safetensors", tmp_path / "clip"), pictures) == pytest.approx(
        expected, rel=1e-4
    )
    assert max(expected) - min(expected) > 0.01


def test_the_prompt_is_not_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    save_file(random_head(), tmp_path / "model.safetensors")
    metric = loaded(tmp_path / "model.safetensors", tmp_path / "clip")
    one = write_pictures(tmp_path / "pictures", prompts=("a red three",))
    assert scores_of(metric, one) == scores_of(metric, write_pictures(tmp_path / "pictures", prompts=("green",)))


def test_the_published_pickle_gives_the_scores_of_the_safetensors(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    pictures = write_pictures(tmp_path / "pictures")
    save_file(random_head(), tmp_path / "model.safetensors")
    torch.save(random_head(), tmp_path / "aesthetic-model.pth")
    safe = scores_of(loaded(tmp_path / "model.safetensors", tmp_path / "clip"), pictures)
    assert scores_of(loaded(tmp_path / "aesthetic-model.pth", tmp_path / "clip", allow_pickle=True), pictures) == safe


@pytest.mark.parametrize("prefix", ["", "predictor."])
def test_a_source_with_its_own_clip_needs_no_other(tmp_path: Path, prefix: str) -> None:
    """As published by shunk031: the vision tower and the head in one file."""
    model, pictures = write_clip(tmp_path / "clip"), write_pictures(tmp_path / "pictures")
    whole = {name: value for name, value in model.state_dict().items() if name.startswith("vis")}
    (tmp_path / "both").mkdir()
    save_file(
        {**{name: value.clone() for name, value in whole.items()}, **random_head(prefix)},
        tmp_path / "both" / "a.safetensors",
    )
    vision = model.config.vision_config
    vision.projection_dim = model.config.projection_dim
    vision.to_json_file(tmp_path / "both" / "config.json", use_diff=False)
    metric = loaded(tmp_path / "both", tmp_path / "absent")
    assert scores_of(metric, pictures) == pytest.approx(by_hand(model, pictures), rel=1e-4)


def test_a_head_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    head = {name: value for name, value in random_head().items() if ".7." not in name}
    save_file(head, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not hold the head of aesthetic: 5 linear layers named layers\.N"):
        loaded(tmp_path / "model.safetensors", tmp_path / "clip")


def test_a_head_whose_layers_do_not_fit_together_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    save_file({**random_head(), "layers.2.weight": torch.zeros(16, 21)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not hold the head of aesthetic"):
        loaded(tmp_path / "model.safetensors", tmp_path / "clip")


def test_a_missing_clip_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    save_file(random_head(), tmp_path / "model.safetensors")
    metric = metric_of("aesthetic", source=str(tmp_path / "model.safetensors"))
    with pytest.raises(
        ConfigError, match=r"hf download openai/clip-vit-large-patch14 model\.safetensors config\.json`"
    ):
        metric.check([])
