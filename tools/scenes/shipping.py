"""What ships of scenes: the teacher, prompts, the detector, and features of real pictures."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from safetensors.torch import save_file

from fewstep.embedded.assets import REFERENCE_FILE, TEACHER_FOLDER, write_manifest
from fewstep.embedded.scenes.detector import read_detector
from fewstep.embedded.scenes.grammar import Scene, draw_scene, parse
from fewstep.embedded.scenes.judging import CATEGORIES, category
from fewstep.embedded.scenes.task import PROMPTS_FILE, Scenes
from tools.embedded_teacher.teacher import assemble_pipeline, save_teacher
from tools.scenes.networks import build_tokenizer
from tools.scenes.pictures import draw
from tools.scenes.sprites import ATLAS
from tools.scenes.workshop import Workshop, pixels_of, read_autoencoder, read_networks

PER_CATEGORY = 100
GUIDANCE = 3.0
"""The teacher's own."""
COPIES = 4
"""Pictures of each prompt."""
_NEVER_HELD_OUT = "single_object"


def ship(shop: Workshop, folder: Path, *, per_category: int = PER_CATEGORY) -> None:
    """Write what ships into a folder that is not there yet; of a teacher in training, what it is now.

    Raises:
        ConfigError: No teacher has been trained in the workshop.
    """
    networks = read_networks(shop)
    whole, folder = folder, folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was stopped
    folder.mkdir(parents=True)
    asked = prompts(per_category, seed=10)
    rare = prompts(per_category, seed=20, held_out=True)
    told = {"scenes": [scene.sentence() for scene in asked], "scenes-held-out": [scene.sentence() for scene in rare]}
    (folder / PROMPTS_FILE).write_text(json.dumps(told, indent=0) + "\n", encoding="utf-8")
    shutil.copyfile(shop.result("detector.safetensors"), folder / Scenes.judge_file)
    detector, rng = read_detector(folder / Scenes.judge_file), random.Random(11)
    real = pixels_of([draw(scene, rng) for _ in range(COPIES) for scene in asked])
    save_file({"features": detector.see(real)[1]}, folder / REFERENCE_FILE)
    save_teacher(
        assemble_pipeline(read_autoencoder(shop), networks, build_tokenizer()),
        folder / TEACHER_FOLDER,
        guidance_scale=GUIDANCE,
        image_size=Scenes.image_size,
    )
    shutil.copyfile(ATLAS.with_suffix(".LICENSES.md"), folder / "LICENSES.md")
    write_manifest(folder)
    folder.rename(whole)


def prompts(per_category: int, seed: int, *, held_out: bool = False) -> tuple[Scene, ...]:
    """Draw as many distinct scenes of every category, of combinations that are trained on or are held out.

    The categories take turns, so that the first so many are of all of them.
    A single thing without a tint is never held out.
    """
    rng = random.Random(seed)
    chosen: dict[str, dict[str, None]] = {
        name: {} for name in CATEGORIES if not held_out or name not in _NEVER_HELD_OUT
    }
    while any(len(each) < per_category for each in chosen.values()):
        scene = draw_scene(rng, held_out=held_out)
        if len(chosen.get(category(scene), {})) < per_category:
            chosen[category(scene)][scene.sentence()] = None
    return tuple(parse(sentence) for each in zip(*chosen.values(), strict=True) for sentence in each)
