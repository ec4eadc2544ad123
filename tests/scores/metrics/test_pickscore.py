"""PickScore on a tiny CLIP of the real class, against that class's own scaled logits."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPImageProcessorPil

from fewstep.errors import ConfigError
from tests.scores.tiny_clip import SIZE, write_clip
from tests.scores.tiny_pictures import metric_of, scores_of, write_pictures


@torch.inference_mode()
def test_the_score_is_the_scaled_logit_of_the_class_itself(tmp_path: Path) -> None:
    model = write_clip(tmp_path / "clip", seed=1)
    pictures = write_pictures(tmp_path / "pictures")
    metric = metric_of("pickscore", source=str(tmp_path / "clip"))
    metric.load(torch.device("cpu"))
    prepare = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    ids, mask = metric.clip.prompts.rows([picture.item.text for picture in pictures])
    pixels = torch.cat([prepare(p.image(), return_tensors="pt")["pixel_values"] for p in pictures])
    logits = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits_per_image.diagonal()
    assert scores_of(metric, pictures) == pytest.approx(logits.tolist(), abs=1e-3)  # the scale is 99
    assert max(abs(value) for value in logits.tolist()) > 1  # no cosine


def test_the_tokenizer_may_be_in_another_place_than_the_weights(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    (tmp_path / "clip" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    metric = metric_of("pickscore", source=str(tmp_path / "clip"), tokenizer=str(tmp_path))
    metric.check([])
    metric.load(torch.device("cpu"))
    assert len(scores_of(metric, write_pictures(tmp_path / "pictures"))) == 3


def test_a_missing_tokenizer_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    (tmp_path / "clip" / "tokenizer.json").unlink()
    with pytest.raises(
        ConfigError, match=r"hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K tokenizer\.json`.*pickscore\.tokenizer="
    ):
        metric_of("pickscore", source=str(tmp_path / "clip")).check([])
