"""VQAScore with a Qwen2.5-VL of a few thousand random weights."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.errors import ConfigError
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.convert import convert
from fewstep.scores.metric import Picture, PromptItem
from fewstep.scores.networks.vqa import QwenVqaScore
from tests.scores.metrics.test_vqa import qwen_logits
from tests.scores.tiny_pictures import metric_of, pattern, scores_of
from tests.scores.tiny_vqa import CHAT, write_qwen, write_tokenizer


def scored(folder: Path, image: Image.Image) -> float:
    metric = metric_of("vqascore", source=str(folder / "qwen"))
    metric.check([])
    metric.load(torch.device("cpu"))
    image.save(folder / "0.png")
    (score,) = scores_of(metric, [Picture(folder / "0.png", PromptItem("0", "a dog"), seed=0)])
    return score


def test_the_score_is_the_probability_of_yes_among_all_words(tmp_path: Path) -> None:
    model, tokenizer = write_qwen(tmp_path / "qwen"), write_tokenizer(tmp_path / "qwen")
    image = pattern(84, 56)
    score = scored(tmp_path, image)
    # the tokenizer splits at punctuation: quotes and what stands beside them are unknown words
    asked = 'Does this image show " a dog "?'
    logits = qwen_logits(model, tokenizer, image, asked, asks_for_yes_or_no=False)
    assert score == pytest.approx(float(logits.double().softmax(0)[tokenizer["Yes"]]), rel=1e-4)


def test_words_of_the_question_are_less_probable_answers_where_the_checkpoint_says_so(tmp_path: Path) -> None:
    model, tokenizer = write_qwen(tmp_path / "qwen"), write_tokenizer(tmp_path / "qwen")
    (tmp_path / "qwen" / "generation_config.json").write_text('{"repetition_penalty": 1.5}')
    image = pattern(84, 56)
    logits = qwen_logits(model, tokenizer, image, 'Does this image show " a dog "?', asks_for_yes_or_no=False).double()
    for word in ("[UNK]", "a", "dog", ".", *CHAT[:5]):
        logits[tokenizer[word]] *= 1.5 if logits[tokenizer[word]] < 0 else 1 / 1.5
    assert scored(tmp_path, image) == pytest.approx(float(logits.softmax(0)[tokenizer["Yes"]]), rel=1e-4)


def test_a_picture_of_1024_pixels_is_looked_at_whole(tmp_path: Path) -> None:
    """1280 tokens, which other users of the model stop at, are 1003520 pixels."""
    write_qwen(tmp_path / "qwen")
    network = QwenVqaScore(Source("vqascore", str(tmp_path / "qwen")))
    network.load(torch.device("cpu"))
    _, grid = network._pixels(pattern(1024, 1024))
    assert grid.tolist() == [[1, 74, 74]]


def test_a_checkpoint_without_its_settings_of_generation_is_refused(tmp_path: Path) -> None:
    write_qwen(tmp_path / "qwen")
    (tmp_path / "qwen" / "generation_config.json").unlink()
    with pytest.raises(ConfigError, match=r"vqascore needs generation_config\.json"):
        metric_of("vqascore", source=str(tmp_path / "qwen")).check([])


def test_a_converted_checkpoint_gives_the_same_score(tmp_path: Path) -> None:
    write_qwen(tmp_path / "published")
    (tmp_path / "published" / "generation_config.json").write_text('{"repetition_penalty": 1.5}')
    convert("vqascore", str(tmp_path / "published"), tmp_path / "qwen")
    converted = scored(tmp_path, pattern(84, 56))
    (tmp_path / "qwen").rename(tmp_path / "converted")
    (tmp_path / "published").rename(tmp_path / "qwen")
    assert converted == scored(tmp_path, pattern(84, 56))
