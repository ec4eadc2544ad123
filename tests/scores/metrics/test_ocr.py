"""The real engine, on text that the tests draw: its models come in its wheel."""

from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, MetricError, Picture, PromptItem
from fewstep.scores.metrics import ocr
from fewstep.scores.metrics.ocr import OcrMetric, comparable_text, quoted, strict_score, text_score
from tests.scores.tiny_pictures import metric_of, scores_of


@cache
def metric() -> OcrMetric:
    made = metric_of("ocr")
    made.load(torch.device("cpu"))
    return made


def written(path: Path, text: str, prompt: str) -> Picture:
    """Dark blue text on yellow: an engine that mixes up red and blue would still have to read it."""
    image = Image.new("RGB", (192, 192), "#ffe9a0")
    font = ImageFont.load_default(44)
    ImageDraw.Draw(image).multiline_text((14, 36), text, font=font, fill="#102060")
    image.save(path)
    return Picture(path, PromptItem("sign", prompt), seed=3)


def test_two_written_lines_are_read_as_the_quoted_text(tmp_path: Path) -> None:
    picture = written(tmp_path / "a.png", "Spring\n2024", 'a poster that says "Spring 2024"')
    (finding,) = metric().examine([picture])
    assert finding == Finding(1.0, {"target": "Spring 2024", "read": "Spring\n2024"})


def test_a_picture_without_text_has_been_read_and_scores_zero(tmp_path: Path) -> None:
    picture = written(tmp_path / "a.png", "", 'a poster that says "Spring"')
    assert metric().examine([picture]) == [Finding(0.0, {"target": "Spring", "read": ""})]


def test_an_engine_that_fails_names_the_picture_and_gives_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = written(tmp_path / "a.png", "x", '"x"')
    failing = metric_of("ocr")

    def engine(image: object) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(failing, "_engine", engine)
    with pytest.raises(MetricError, match=r"ocr cannot score .*a\.png \(prompt sign, seed 3\): .*out of memory"):
        scores_of(failing, [picture])


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    picture = written(tmp_path / "a.png", "x", '"x"')
    picture.path.write_bytes(b"not a picture")
    with pytest.raises(MetricError, match=r"ocr cannot score .*a\.png"):
        scores_of(metric_of("ocr"), [picture])


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ('a sign "Open" and a sign "Closed"', "Open"),
        ("a sign “Café” at night", "Café"),
        ("a sign 'Open'", None),
        ("a dog", None),
    ],
)
def test_the_target_is_the_first_text_in_double_quotes(prompt: str, target: str | None) -> None:
    assert quoted(prompt) == target


@pytest.mark.parametrize(
    ("target", "read", "score"),
    [
        ("Hello World", "hello\nworld", 1.0),
        ("cat", "a cat on a mat", 1.0),
        ("cats", "cat", 0.75),
        ("sitting", "kitten", 1 - 3 / 7),
        ("ab", "something else", 0.0),
        ("cat", "", 0.0),
    ],
)
def test_the_score_is_one_minus_the_edits_over_the_length(target: str, read: str, score: float) -> None:
    assert text_score(target, read) == pytest.approx(score)


def edits(a: str, b: str) -> int:
    """The edit distance by its recurrence."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))


@pytest.mark.parametrize(("target", "read"), [("flaw", "lawn"), ("open", "pe no"), ("ab", "bababa"), ("x", "xyz")])
def test_the_strict_score_counts_what_is_too_much_as_well(target: str, read: str) -> None:
    a, b = comparable_text(target), comparable_text(read)
    assert strict_score(target, read) == pytest.approx(1 - edits(a, b) / max(len(a), len(b)))


def test_the_figures_are_the_mean_the_share_of_exact_ones_and_the_strict_mean() -> None:
    findings = [Finding(1.0, {"target": "ab", "read": "xabx"}), Finding(0.5, {"target": "ab", "read": "a"})]
    pictures = [Picture(Path("a.png"), PromptItem("a", '"ab"'), 0)] * 2
    assert metric_of("ocr").conclude(pictures, findings) == {"ocr": 0.75, "ocr_exact": 0.5, "ocr_strict": 0.5}


@pytest.mark.parametrize("prompt", ["a dog", "a sign 'Open'", 'a sign ""', 'a sign "  "'])
def test_a_prompt_without_quoted_text_is_refused_before_anything_is_drawn(prompt: str) -> None:
    with pytest.raises(ConfigError, match=r"ocr cannot score the prompt .* \(p7\): it has no text in double quotes"):
        metric_of("ocr").check([PromptItem("p7", prompt)])


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(ConfigError, match=r"ocr needs onnxruntime; install with `pip install 'fewstep\[eval\]'`"):
        metric_of("ocr").check([])


def test_the_engine_and_its_models_are_part_of_the_protocol() -> None:
    assert set(metric().identity()) == {"models", "rapidocr", "onnxruntime"}
