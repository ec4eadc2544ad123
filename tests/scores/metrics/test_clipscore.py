"""CLIPScore on a tiny CLIP of the real class, against that class's own forward with the published processor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch.nn.functional import interpolate
from transformers import CLIPImageProcessorPil, CLIPModel

from fewstep.errors import ConfigError
from fewstep.scores.metric import MetricError, Picture, PromptItem
from fewstep.scores.metrics.clip import ClipScore
from fewstep.scores.networks.preprocessing import CLIP_MEAN, CLIP_STD
from tests.scores.tiny_clip import END, LENGTH, SIZE, START, write_clip
from tests.scores.tiny_pictures import metric_of, pattern, scores_of, write_pictures

CPU = torch.device("cpu")


@pytest.fixture
def clip(tmp_path: Path) -> tuple[CLIPModel, str]:
    return write_clip(tmp_path / "clip"), str(tmp_path / "clip")


def loaded(source: str, **settings: object) -> ClipScore:
    metric = metric_of("clipscore", source=source, **settings)
    metric.check([])
    metric.load(CPU)
    return metric


def words(metric: ClipScore, text: str) -> list[int]:
    """A prompt's ids without filling."""
    return [i for i, keep in zip(*(rows[0].tolist() for rows in metric.clip.prompts.rows([text])), strict=True) if keep]


@torch.inference_mode()
def cosine(model: CLIPModel, pixels: torch.Tensor, ids: list[int]) -> float:
    out = model(input_ids=torch.tensor([ids]), pixel_values=pixels)
    return float(out.logits_per_image / model.logit_scale.exp())


def test_the_score_is_the_cosine_that_the_class_itself_computes(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    model, source = clip
    metric, pictures = loaded(source), write_pictures(tmp_path / "pictures")
    prepare = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    expected = [
        cosine(model, prepare(p.image(), return_tensors="pt")["pixel_values"], words(metric, p.item.text))
        for p in pictures
    ]
    assert scores_of(metric, pictures) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.01


def test_a_long_prompt_is_cut_and_keeps_its_end_token(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    _, source = clip
    long = words(loaded(source), "red " * 40)
    assert len(long) == LENGTH and long[0] == START and long[-1] == END and long.count(END) == 1


def test_the_published_evaluation_resizes_float_pixels(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    model, source = clip
    metric, pictures = loaded(source, preprocess="cdm"), write_pictures(tmp_path / "pictures", size=(40, 40))
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    expected = []
    for number, picture in enumerate(pictures):
        raw = torch.from_numpy(np.array(pattern(40, 40, number))).permute(2, 0, 1).float() / 255
        small = interpolate(raw[None], SIZE, mode="bilinear", antialias=True)
        expected.append(cosine(model, (small - mean) / std, words(metric, picture.item.text)))
    assert scores_of(metric, pictures) == pytest.approx(expected, abs=1e-5)


def test_the_two_ways_of_resizing_give_different_scores(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    _, source = clip
    pictures = write_pictures(tmp_path / "pictures", size=(40, 40))
    assert scores_of(loaded(source), pictures) != pytest.approx(
        scores_of(loaded(source, preprocess="cdm"), pictures), abs=1e-3
    )


def test_a_score_does_not_depend_on_the_other_pictures_of_the_batch(
    clip: tuple[CLIPModel, str], tmp_path: Path
) -> None:
    metric, pictures = loaded(clip[1]), write_pictures(tmp_path / "pictures")
    alone = [scores_of(metric, [picture])[0] for picture in pictures]
    assert scores_of(metric, pictures) == pytest.approx(alone, abs=1e-6)


def test_half_precision_weights_are_scored_in_float32(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    model, _ = clip
    model.half().save_pretrained(tmp_path / "half")
    metric = loaded(str(tmp_path / "half"), tokenizer=clip[1])
    assert {p.dtype for p in metric.clip.network.parameters()} == {torch.float32}


def test_a_picture_that_cannot_be_read_is_named(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    pictures[1].path.write_bytes(b"not a picture")
    with pytest.raises(MetricError, match=r"clipscore cannot score .*1\.png \(prompt p1, seed 1\): the file cannot be"):
        scores_of(loaded(clip[1]), pictures)


def test_a_score_that_is_no_number_names_its_picture(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    metric, pictures = loaded(clip[1]), write_pictures(tmp_path / "pictures")
    metric.clip.network.visual_projection.weight.data.fill_(float("nan"))
    with pytest.raises(MetricError, match=r"clipscore cannot score .*0\.png \(prompt p0, seed 0\): its score is nan"):
        scores_of(metric, pictures)


def test_unloading_drops_the_network(clip: tuple[CLIPModel, str]) -> None:
    metric = loaded(clip[1])
    metric.unload()
    assert not metric.clip.is_loaded


def test_a_prompt_without_words_is_scored(clip: tuple[CLIPModel, str], tmp_path: Path) -> None:
    picture = write_pictures(tmp_path / "pictures")[0]
    empty = Picture(picture.path, PromptItem("empty", ""), 0)
    metric = loaded(clip[1])
    assert words(metric, "") == [START, END] and abs(scores_of(metric, [empty])[0]) <= 1


def test_a_checkpoint_that_is_not_here_is_one_sentence_with_one_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    files = r"model\.safetensors config\.json tokenizer\.json"
    with pytest.raises(ConfigError, match=rf"run `HF_HUB_OFFLINE=0 hf download openai/clip-vit-large-patch14 {files}`"):
        metric_of("clipscore").check([])
