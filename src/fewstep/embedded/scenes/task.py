"""The task ``scenes``: one to three of forty things, their number, colour, size and place, on a ground with dots."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.embedded.assets import REMEDY, SCENES, check_files
from fewstep.embedded.scenes.grammar import draw_scene
from fewstep.embedded.task import EmbeddedTask
from fewstep.files import load_json

if TYPE_CHECKING:
    from fewstep.embedded.scenes.detector import SceneDetector

PROMPTS_FILE = "prompts.json"
_TRAINING_PROMPTS = 4_000


class Scenes(EmbeddedTask["SceneDetector"]):
    """Judged by a detector of 128 features; the reference is of 4 pictures of each prompt.

    The prompts to evaluate with are 100 of each of GenEval's categories that there are; ``scenes-held-out`` are of
    combinations that no training has seen.
    """

    name = SCENES
    example = "two red apples to the left of a cat, on white"
    image_size = 48
    prompt_sets = (SCENES, "scenes-held-out")
    judge_file = "detector.safetensors"

    def prompts(self, prompt_set: str) -> Sequence[str]:
        path = check_files(self.name, under=PROMPTS_FILE)
        return load_json(path, dict[str, list[str]], cure=REMEDY)[prompt_set]

    def training_prompts(self) -> Sequence[str]:
        rng = random.Random(0)
        return [draw_scene(rng).sentence() for _ in range(_TRAINING_PROMPTS)]

    def read_judge(self, path: Path) -> SceneDetector:
        from fewstep.embedded.scenes.detector import read_detector

        return read_detector(path)
