"""Real pictures of scenes on disk, one per prompt."""

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fewstep.embedded.scenes.grammar import parse
from fewstep.scores.metric import Picture, PromptItem
from tools.scenes.pictures import draw


def write_scenes(folder: Path, prompts: Sequence[str], *, seed: int = 0) -> list[Picture]:
    """Draw a picture of each prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, pictures = random.Random(seed), []
    for number, prompt in enumerate(prompts):
        path = folder / f"{number:05}.png"
        Image.fromarray(draw(parse(prompt), rng).pixels).save(path)
        pictures.append(Picture(path, PromptItem(f"s{number}", prompt), seed=0))
    return pictures
