from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import Dinov2Config, Dinov2Model

from fewstep.embedded.digits.task import Digits
from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.metric import MetricError
from fewstep.scores.networks.extractors import CLIP, ClipExtractor, Extractor, create_extractor
from fewstep.testing.closeness import additions, assert_rounded_alike
from tests.scores.tiny_clip import SIZE, write_clip
from tests.scores.tiny_digits import write_digits
from tests.scores.tiny_pictures import features_of, metric_of, pattern


def extractor(name: str, source: Path | str | None) -> Extractor:
    return create_extractor(
        name,  # type: ignore[arg-type]
        metric="fid",
        source=None if source is None else str(source),
        revision=None,
        allow_pickle=False,
    )


def loaded(name: str, source: Path | None) -> Extractor:
    chosen = extractor(name, source)
    chosen.check()
    chosen.load(torch.device("cpu"))
    return chosen


def by_hand(image: Image.Image, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None].float()


# the box of CMMD's original: (side - shorter side) // 2 on either axis
@pytest.mark.parametrize(
    ("size", "box"), [((24, 24), (0, 0, 24, 24)), ((40, 23), (8, 0, 31, 23)), ((23, 40), (0, 8, 23, 31))]
)
def test_clip_features_are_the_normalised_embedding_of_the_central_square(
    tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    model = write_clip(tmp_path / "clip")
    chosen = loaded("clip", tmp_path / "clip")
    image = pattern(*size)
    features = chosen.features([chosen.prepare(image)])
    pixels = by_hand(image.crop(box), SIZE, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    with torch.no_grad():
        expected = normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    assert torch.allclose(features, expected, atol=1e-5)


def test_dinov2_features_are_the_class_token_of_the_squashed_picture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    chosen = loaded("dinov2", tmp_path)
    image = pattern(40, 24)
    features = chosen.features([chosen.prepare(image)])
    with torch.no_grad():
        pixels = by_hand(image, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        expected = model(pixel_values=pixels).last_hidden_state[:, 0]
    assert torch.allclose(features, expected, atol=1e-5)


def test_digits_features_are_those_of_the_demos_classifier(tmp_path: Path) -> None:
    picture = write_digits(tmp_path, [23])[0]
    chosen = loaded("digits", None)
    pixels = torch.from_numpy(np.array(picture.image())).permute(2, 0, 1)
    classifier = Digits().load_judge()
    found = chosen.features([chosen.prepare(picture.image())])
    assert_rounded_alike(found, classifier.features(pixels[None]), terms=additions(classifier))


def test_features_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    pictures = write_digits(tmp_path, [3, 41, 66])
    metric = metric_of("vendi", extractor="digits")
    metric.load(torch.device("cpu"))
    together = features_of(metric, pictures)
    assert torch.allclose(together, torch.cat([features_of(metric, [one]) for one in pictures]), atol=1e-5)


def test_a_picture_of_another_size_is_named_by_the_digits_extractor(tmp_path: Path) -> None:
    picture = write_digits(tmp_path, [3])[0]
    pattern(16, 16).save(picture.path)
    metric = metric_of("vendi", extractor="digits")
    metric.load(torch.device("cpu"))
    with pytest.raises(MetricError, match=r"000\.png \(prompt d3, seed 0\): it has 16 x 16 pixels"):
        features_of(metric, [picture])


@pytest.mark.parametrize("name", ["inception", "inception-torch", "inception-tf1", "clip", "dinov2"])
def test_a_missing_checkpoint_is_one_sentence_with_the_command(name: str) -> None:
    with pytest.raises(ConfigError, match=r"hf download [\w./-]+") as caught:
        extractor(name, None).check()
    assert "--set fid.source=FOLDER" in str(caught.value)


def test_a_checkpoint_for_the_shipped_extractor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fid\.source is some/repo, but the extractor digits ships inside"):
        extractor("digits", "some/repo")


def test_another_network_in_the_place_of_inception_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="does not hold the Inception network of FID"):
        loaded("inception", tmp_path / "clip")


def test_another_checkpoint_in_the_same_folder_has_another_key(tmp_path: Path) -> None:
    write_clip(tmp_path, seed=0)
    before = extractor("clip", tmp_path).key
    write_clip(tmp_path, seed=1)
    assert extractor("clip", tmp_path).key != before


def test_features_of_another_preprocessing_have_another_key() -> None:
    before = extractor("clip", "a/b")
    assert ClipExtractor(replace(CLIP, preprocessing="squashed"), before.checkpoint).key != before.key


def test_extractors_of_different_checkpoints_have_different_keys() -> None:
    keys = {extractor("clip", None).key, extractor("clip", "a/b").key, extractor("inception", None).key}
    assert len(keys) == 3
