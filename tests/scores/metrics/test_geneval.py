"""GenEval with tiny random networks of the real classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import interpolate, normalize
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.metric import Finding, MetricError, Picture, PromptItem
from fewstep.scores.metrics.geneval_rules import confident
from fewstep.scores.networks.colour_check import COLOURS, ColourCheck, crop_on_grey
from fewstep.scores.networks.detector import CLASSES, Detection, Detector, box_of, instances
from tests.scores.tiny_clip import END, SIZE, START, write_clip
from tests.scores.tiny_pictures import metric_of, pattern, scores_of


def write_detector(folder: Path, labels: int = 80) -> Mask2FormerForUniversalSegmentation:
    backbone = SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        num_labels=labels,
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    # an untrained head finds every class about as likely, and rounding would decide their order
    torch.nn.init.normal_(model.class_predictor.weight, std=1.0)
    model.save_pretrained(folder)
    return model


def write_colour_words(folder: Path) -> None:
    """A tokenizer that knows every word of the phrases about a car."""
    words = ("a", "photo", "of", "car", "object", "-", "colored", *COLOURS)
    vocabulary = {**{word: number for number, word in enumerate(words)}, "<s>": START, "<e>": END}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", START), ("<e>", END)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A <e>", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector and a CLIP as repositories have them."""
    root = tmp_path_factory.mktemp("geneval")
    write_detector(root / "detector")
    write_clip(root / "clip")
    write_colour_words(root / "clip")
    return root / "detector", root / "clip"


def test_an_object_is_its_class_times_the_certainty_of_its_mask() -> None:
    classes = torch.full((2, 81), -20.0)
    classes[0, 3], classes[0, 80] = 0.0, 0.0  # a motorcycle with probability one half
    classes[1, 80] = 20.0  # nothing
    masks = torch.full((2, 4, 6), -1.0)
    masks[0, 1:3, 2:5] = 2.0
    found = max(instances(classes, masks), key=lambda one: one.score)
    assert (CLASSES[found.label], found.box) == ("motorcycle", (2.0, 1.0, 5.0, 3.0))
    assert found.score == pytest.approx(0.5 * (1 / (1 + np.exp(-2))), rel=1e-4)
    assert int(found.mask.sum()) == 6


def test_a_query_whose_mask_is_empty_is_nothing() -> None:
    assert instances(torch.zeros(3, 81), torch.full((3, 4, 4), -1.0)) == []


def test_a_box_reaches_to_the_far_edge_of_its_last_pixel() -> None:
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[2, 3] = True
    assert box_of(mask) == (3.0, 2.0, 4.0, 3.0)


def test_the_detector_reads_the_picture_at_800_pixels_and_answers_at_its_own_size(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    image = pattern(60, 40)
    detector = Detector(Source("geneval", str(folders[0])))
    detector.check()
    detector.load(torch.device("cpu"))
    found = detector.find(image)
    # worked out again: shorter side 800 (so 1200 x 800), bilinear, ImageNet's numbers, padded to 1216 x 800
    pixels = np.asarray(image.resize((1200, 800), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    pixels = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    padded = np.zeros((800, 1216, 3), dtype=np.float32)
    padded[:, :1200] = pixels
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folders[0]).eval()
    with torch.no_grad():
        seen = model(pixel_values=torch.from_numpy(padded).permute(2, 0, 1)[None])
    logits = interpolate(seen.masks_queries_logits, (800, 1216), mode="bilinear")[..., :1200]
    expected = instances(seen.class_queries_logits[0], interpolate(logits, (40, 60), mode="bilinear")[0])
    assert [one.label for one in found] == [one.label for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], rel=1e-3)
    assert {one.mask.shape for one in found} == {torch.Size([40, 60])}


def test_a_detector_of_other_classes_is_refused(tmp_path: Path) -> None:
    write_detector(tmp_path, labels=5)
    with pytest.raises(CheckpointError, match="tells 5 classes apart, and geneval needs the 80"):
        Detector(Source("geneval", str(tmp_path))).load(torch.device("cpu"))


def half() -> Detection:
    """The left half of a picture of 12 x 8 pixels."""
    mask = torch.zeros(8, 12, dtype=torch.bool)
    mask[:, :6] = True
    return Detection(2, 0.9, (0, 0, 7, 8), mask)


def test_an_object_is_cut_out_on_grey() -> None:
    crop = np.asarray(crop_on_grey(Image.new("RGB", (12, 8), (10, 20, 30)), half()))
    assert crop.shape == (8, 7, 3)
    assert (crop[:, :6] == (10, 20, 30)).all() and (crop[:, 6] == 153).all()


def test_the_colour_is_the_phrase_that_clip_finds_nearest(folders: tuple[Path, Path]) -> None:
    check = ColourCheck(Source("geneval", str(folders[1])))
    check.load(torch.device("cpu"))
    image = pattern(12, 8)
    told = check.colours(image, "car", [half()])
    assert told != check.colours(pattern(12, 8, shift=3), "car", [half()])
    network, tokens = check.network, check.prompts
    crop = crop_on_grey(image, half())
    # 7 x 8 pixels: the shorter side to 16 gives 16 x 18, of which the middle 16 rows are kept
    resized = np.asarray(crop.resize((SIZE, 18), Image.Resampling.BICUBIC), dtype=np.float64)[1:17] / 255
    pixels = (resized - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)
    with torch.no_grad():
        shown = network.get_image_features(
            pixel_values=torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        ).pooler_output
        means = []
        for colour in COLOURS:
            phrases = (
                f"a photo of a {colour} car",
                f"a photo of a {colour}-colored car",
                f"a photo of a {colour} object",
            )
            ids, mask = tokens.rows(phrases)
            means.append(normalize(network.get_text_features(ids, attention_mask=mask).pooler_output, dim=-1).mean(0))
    assert told == [COLOURS[int((normalize(torch.stack(means), dim=-1) @ shown[0]).argmax())]]


def test_the_score_of_a_picture_is_the_verdict_on_what_was_found(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pattern(60, 40).save(tmp_path / "a.png")
    metric = metric_of("geneval", source=str(folders[0]), colour_source=str(folders[1]))
    item = PromptItem("p1", "a car", {"tag": "single_object", "include": [{"class": "car", "count": 1}]})
    metric.check([item])
    metric.load(torch.device("cpu"))
    (finding,) = metric.examine([Picture(tmp_path / "a.png", item, seed=0)])
    objects = confident(metric._detector.find(pattern(60, 40)), tag="single_object")
    right = "car" in objects
    wrong = [] if right else ["1 car expected, 0 found"]
    assert finding.score == float(right)
    assert json.loads(json.dumps(finding.details)) == {
        "found": {name: len(same) for name, same in objects.items()},
        "wrong": wrong,
    }


@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_are_not_finite_find_nothing_and_name_the_picture(
    which: int, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    metric = metric_of("geneval", source=str(folders[0]), colour_source=str(folders[1]))
    metric.load(torch.device("cpu"))
    broken = (metric._detector, metric._colours)[which]
    for weight in broken.network.parameters():
        weight.fill_(float("nan"))
    pattern(60, 40).save(tmp_path / "a.png")
    wanted = [{"class": name, "count": 1, "color": "red"} for name in CLASSES]
    item = PromptItem("p1", "everything", {"tag": "colors", "include": wanted})
    with pytest.raises(MetricError, match=r"a\.png \(prompt p1, seed 0\): .* not finite"):
        scores_of(metric, [Picture(tmp_path / "a.png", item, seed=0)])


def test_the_overall_score_is_the_mean_over_tasks() -> None:
    items = [PromptItem(str(i), "", {"tag": tag}) for i, tag in enumerate(("colors", "colors", "colors", "counting"))]
    pictures = [Picture(Path("a.png"), item, seed=0) for item in items]
    figures = metric_of("geneval").conclude(pictures, [Finding(score) for score in (1.0, 0.0, 1.0, 1.0)])
    assert figures == pytest.approx({"geneval": (2 / 3 + 1) / 2, "geneval_counting": 1.0, "geneval_colors": 2 / 3})
    assert next(iter(figures)) == "geneval"


def test_a_missing_detector_is_one_sentence_with_the_command() -> None:
    with pytest.raises(ConfigError, match="hf download facebook/mask2former-swin-small-coco-instance"):
        metric_of("geneval").check([])


def test_a_missing_clip_is_one_sentence_with_the_command(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="hf download openai/clip-vit-large-patch14"):
        metric_of("geneval", source=str(folders[0])).check([])
