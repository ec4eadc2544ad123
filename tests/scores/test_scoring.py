"""Scoring any folder of pictures, without a model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.errors import ConfigError
from fewstep.scores import create_metrics, measure, score_folder
from tests.scores.tiny_digits import write_digits

DIGITS = {"extractor": "digits"}
PROGRAM = """
import sys
from fewstep.scores import score_folder
print(score_folder(sys.argv[1], ["fid", "prdc"], settings={name: {"extractor": "digits"} for name in ("fid", "prdc")}))
above = ("fewstep.sampling", "fewstep.backbones", "fewstep.runs", "fewstep.evaluation", "diffusers")
print([name for name in sys.modules if name.startswith(above)])
"""


def test_a_folder_is_scored_without_anything_that_knows_a_model(tmp_path: Path) -> None:
    write_digits(tmp_path, range(12))
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True)
    figures, above = done.stdout.splitlines()
    assert all(name in figures for name in ("fid", "precision", "recall", "density", "coverage"))
    assert above == "[]"


def test_prompts_are_found_by_the_pictures_names_and_equal_ones_are_seeds_of_one(tmp_path: Path) -> None:
    pictures = write_digits(tmp_path / "drawn", range(0, 70, 7), seeds=2)
    prompts = {f"drawn/{picture.path.name}": picture.item.text for picture in pictures}
    settings = {"diversity": DIGITS}
    found = score_folder(tmp_path, ["digits", "diversity"], prompts=prompts, settings=settings)
    expected: dict[str, float] = {}
    for metric in create_metrics(["digits", "diversity"], settings):
        expected |= measure(metric, pictures, torch.device("cpu"))
    assert found == expected


def test_a_metric_that_reads_prompts_asks_for_them(tmp_path: Path) -> None:
    write_digits(tmp_path, [3])
    with pytest.raises(ConfigError, match="digits reads prompts, and none are given for the pictures in "):
        score_folder(tmp_path, ["digits"])


def test_a_picture_without_a_prompt_is_named(tmp_path: Path) -> None:
    write_digits(tmp_path, [3, 4])
    with pytest.raises(ConfigError, match=r"1 pictures in .* have no prompt, first '001\.png'; add theirs"):
        score_folder(tmp_path, ["digits"], prompts={"000.png": "a red zero"})


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no pictures to score"):
        score_folder(tmp_path, ["aesthetic"])


def test_too_few_pictures_of_a_prompt_are_refused(tmp_path: Path) -> None:
    write_digits(tmp_path, [3, 4])
    with pytest.raises(ConfigError, match="diversity needs 2 pictures of every prompt"):
        score_folder(tmp_path, ["diversity"], settings={"diversity": DIGITS})


def write_clip(folder: Path, *greys: int, name: str = "frame-{}.png") -> None:
    folder.mkdir(parents=True)
    for number, grey in enumerate(greys, 1):
        Image.new("RGB", (32, 32), (grey,) * 3).save(folder / name.format(number))


def test_each_folder_of_pictures_is_a_clip_and_numbers_order_its_frames(tmp_path: Path) -> None:
    # by their names alone, 10 to 12 would come before 2
    write_clip(tmp_path / "clips" / "a", *range(12))
    write_clip(tmp_path / "clips" / "b", *range(12), name="{:05d}.png")
    found = score_folder(tmp_path, ["flicker"], clips=True)
    assert found == {"flicker": pytest.approx(1 - 1 / 255)}


def test_a_clip_has_one_prompt_and_every_frame_is_scored_for_it(tmp_path: Path) -> None:
    pictures = write_digits(tmp_path / "a", range(0, 70, 14))
    (tmp_path / "b").mkdir()
    for picture in pictures:
        (tmp_path / "b" / picture.path.name).write_bytes(picture.path.read_bytes())
    prompts = {"a": pictures[0].item.text, "b": pictures[1].item.text}
    # each clip shows five digits, of which one is what was asked for
    assert score_folder(tmp_path, ["digits"], prompts=prompts, clips=True) == {"digits": pytest.approx(0.2)}
    # and one frame of each makes a set of two pictures
    vendi = score_folder(tmp_path, ["vendi"], prompts=prompts, settings={"vendi": DIGITS}, clips=True)
    assert vendi["vendi"] == pytest.approx(1)


def test_a_clip_without_a_prompt_is_named_by_its_folder(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", 1, 2)
    write_clip(tmp_path / "b", 1, 2)
    with pytest.raises(ConfigError, match=r"1 clips in .* have no prompt, first 'b'; add theirs"):
        score_folder(tmp_path, ["flicker"], prompts={"a": "a red zero"}, clips=True)


def test_a_film_is_asked_for_as_its_frames(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    with pytest.raises(ConfigError, match=r"holds no clips to score; .* a clip as the folder of its frames \(ffmpeg"):
        score_folder(tmp_path, ["flicker"], clips=True)


def test_clips_of_several_lengths_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", 1, 2)
    write_clip(tmp_path / "b", 1, 2, 3)
    with pytest.raises(ConfigError, match=r"the clip .*a has 2 frames and .*b has 3; .* cut them to one length\.$"):
        score_folder(tmp_path, ["flicker"], clips=True)


def test_a_clip_of_very_many_frames_is_refused_before_one_is_read(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"{number}.png").touch()
    with pytest.raises(ConfigError, match=r"has 1001 frames, more than 1000\.$"):
        score_folder(tmp_path, ["flicker"], clips=True)


def test_a_clip_of_one_frame_has_nothing_to_compare(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", 1)
    with pytest.raises(ConfigError, match="flicker compares the frames of a clip, and here are single pictures"):
        score_folder(tmp_path, ["flicker"], clips=True)
