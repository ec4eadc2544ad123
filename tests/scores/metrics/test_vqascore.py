"""VQAScore with a Qwen2.5-VL of a few thousand random weights."""

from pathlib import Path

import pytest
import torch

from fewstep.scores.metric import Picture, PromptItem
from tests.scores.metrics.test_vqa import qwen_logits
from tests.scores.tiny_pictures import metric_of, pattern, scores_of
from tests.scores.tiny_vqa import write_qwen, write_tokenizer


def test_the_score_is_the_probability_of_yes_among_all_words(tmp_path: Path) -> None:
    model, tokenizer = write_qwen(tmp_path / "qwen"), write_tokenizer(tmp_path / "qwen")
    metric = metric_of("vqascore", source=str(tmp_path / "qwen"))
    metric.check([])
    metric.load(torch.device("cpu"))
    image = pattern(84, 56)
    image.save(tmp_path / "0.png")
    (score,) = scores_of(metric, [Picture(tmp_path / "0.png", PromptItem("0", "a dog"), seed=0)])
    # the tokenizer splits at punctuation: quotes and what stands beside them are unknown words
    asked = 'Does this image show " a dog "?'
    logits = qwen_logits(model, tokenizer, image, asked, asks_for_yes_or_no=False)
    assert score == pytest.approx(float(logits.double().softmax(0)[tokenizer["Yes"]]), rel=1e-4)
