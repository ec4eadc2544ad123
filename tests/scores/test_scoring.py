"""Scoring any folder of pictures, without a model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
