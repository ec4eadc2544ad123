"""The stages that make a teacher of ``scenes``, each into a file that the next one reads.

An interrupted one goes on where it stopped: a stage whose result is there is skipped, and the longest, the teacher's
training, keeps its state and may be cut into sittings.

    OUTPUT/vae                    the autoencoder
    OUTPUT/detector.safetensors   the scorer's eye
    OUTPUT/latents.safetensors    what the teacher learns from
    OUTPUT/flow.state             its unfinished training
    OUTPUT/networks.safetensors   its running average, once trained
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.embedded.scenes.grammar import Scene, draw_scene
from fewstep.errors import ConfigError
from fewstep.files import whole_file
from tools.embedded_teacher.teacher import TeacherNetworks
from tools.scenes.autoencoder import decode, encode, standardise, train_autoencoder
from tools.scenes.detector_training import Targets, targets_of, train_detector
from tools.scenes.flow import FlowSettings, LatentPool, fresh_state, train_flow
from tools.scenes.heads import without_heads
from tools.scenes.layout import ASPECTS, cells_of
from tools.scenes.networks import build_networks, build_tokenizer, tokenize
from tools.scenes.pictures import Drawn, draw
from tools.scenes.reading import asked_of
from tools.scenes.spoiling import Spoiler

Notify = Callable[[str], None]
LONGEST = 366 * 86_400.0


@dataclass(frozen=True)
class Training:
    """How long one of the smaller networks is trained."""

    num_steps: int
    batch: int
    lr: float


@dataclass(frozen=True)
class Settings:
    """Everything that decides what the stages make."""

    seed: int = 0
    pictures: int = 100_000
    spellings: int = 3
    detector: Training = Training(3_300, 96, 4e-3)
    autoencoder: Training = Training(4_500, 24, 3.5e-3)
    flow: FlowSettings = field(default_factory=FlowSettings)


@dataclass(frozen=True)
class Workshop:
    """The folder, the settings, and who is told."""

    folder: Path
    settings: Settings
    notify: Notify

    def result(self, name: str) -> Path:
        """Where a stage's result is, or will be."""
        return self.folder / name

    def reporter(self, stage: str, num_steps: int) -> Callable[[int, dict[str, float]], None]:
        """Make a callback that tells step, figures and seconds."""
        started = time.monotonic()

        def report(step: int, values: dict[str, float]) -> None:
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.notify(f"{stage} {step}/{num_steps}  {numbers}  {time.monotonic() - started:.0f} s")

        return report


def open_workshop(folder: Path, settings: Settings, notify: Notify = print) -> Workshop:
    """Create or reopen the folder.

    Raises:
        ConfigError: It was begun with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen, record = json.dumps(asdict(settings), indent=2), folder / "settings.json"
    if record.exists() and record.read_text(encoding="utf-8") != chosen:
        raise ConfigError(
            f"{folder} was begun with other settings (see {record}). Choose another folder, or remove it."
        )
    record.write_text(chosen, encoding="utf-8")
    return Workshop(folder, settings, notify)


def work(shop: Workshop, *, seconds: float = LONGEST) -> bool:
    """Run every stage whose result is missing; the teacher's training for at most so many seconds.

    Returns:
        Whether the teacher is trained.
    """
    for name, stage in STAGES.items():
        if shop.result(name).exists():
            shop.notify(f"{name}: already there")
            continue
        started = time.monotonic()
        stage(shop)
        shop.notify(f"{name}: done in {(time.monotonic() - started) / 60:.1f} min")
    return shop.result("networks.safetensors").exists() or train_teacher(shop, seconds)


def pictures(num: int, rng: random.Random) -> list[Drawn]:
    """Draw pictures of combinations that are not held out."""
    return [draw(draw_scene(rng), rng) for _ in range(num)]


def pixels_of(drawn: list[Drawn]) -> Tensor:
    """Stack pictures as byte pixels ``(n, 3, 48, 48)``."""
    return torch.from_numpy(numpy.stack([picture.pixels for picture in drawn])).permute(0, 3, 1, 2).contiguous()


def make_detector(shop: Workshop) -> None:
    """Train the detector on pictures drawn for it alone, half of them spoilt, a third as the autoencoder reads them."""
    chosen, rng = shop.settings.detector, random.Random(shop.settings.seed + 1)
    vae, spoiler = read_autoencoder(shop), Spoiler(rng)
    read = chosen.batch // 3

    def batch(step: int) -> tuple[Tensor, Targets, int]:
        drawn = [draw(draw_scene(rng), rng, spoiler if index % 2 else None) for index in range(chosen.batch)]
        pixels = pixels_of(drawn)
        pixels[:read] = decode(vae, encode(vae, pixels[:read]))
        return pixels, targets_of(drawn), read

    detector = train_detector(
        batch,
        num_steps=chosen.num_steps,
        lr=chosen.lr,
        seed=shop.settings.seed,
        report=shop.reporter("detector", chosen.num_steps),
    )
    with whole_file(shop.result("detector.safetensors")) as unfinished:
        save_file(detector.state_dict(), unfinished)


def make_autoencoder(shop: Workshop) -> None:
    """Train the autoencoder and measure its latents."""
    chosen, rng = shop.settings.autoencoder, random.Random(shop.settings.seed + 2)
    drawn = pictures(min(20_000, shop.settings.pictures), rng)
    pixels, cells = pixels_of(drawn), torch.stack([cells_of(picture)[0] for picture in drawn])
    vae = train_autoencoder(
        pixels,
        cells,
        classes=ASPECTS["noun"],
        num_steps=chosen.num_steps,
        batch=chosen.batch,
        lr=chosen.lr,
        seed=shop.settings.seed,
        compiled=shop.settings.flow.compiled,
        report=shop.reporter("autoencoder", chosen.num_steps),
    )
    standardise(vae, pixels[:4_000])
    partial = shop.result("vae.partial")
    vae.save_pretrained(partial)
    partial.rename(shop.result("vae"))


def read_autoencoder(shop: Workshop) -> AutoencoderKL:
    """Load the trained autoencoder."""
    return AutoencoderKL.from_pretrained(shop.result("vae"), local_files_only=True).eval()


def make_latents(shop: Workshop) -> None:
    """Draw the teacher's pictures, encode them, and spell each of them in several ways."""
    rng, tokenizer, vae = random.Random(shop.settings.seed + 3), build_tokenizer(), read_autoencoder(shop)
    latents, cells, asked, ids = [], [], [], []
    for start in range(0, shop.settings.pictures, 1_000):
        drawn = pictures(min(1_000, shop.settings.pictures - start), rng)
        latents.append(encode(vae, pixels_of(drawn)).half())
        cells += [cells_of(picture) for picture in drawn]
        asked += [asked_of(picture.scene) for picture in drawn]
        told = [spelling(picture, rng) for picture in drawn for _ in range(shop.settings.spellings)]
        ids.append(tokenize(tokenizer, told).view(len(drawn), shop.settings.spellings, -1).to(torch.int16))
    null = tokenize(tokenizer, [""])[0].to(torch.int16)
    with whole_file(shop.result("latents.safetensors")) as unfinished:
        pool = {"x0": torch.cat(latents), "cells": torch.stack(cells), "asked": torch.stack(asked)}
        save_file({**pool, "ids": torch.cat(ids), "null": null}, unfinished)


def spelling(picture: Drawn, rng: random.Random) -> str:
    """Tell what a picture shows; whether ground and style are told is drawn anew."""
    scene: Scene = replace(
        picture.scene,
        background=picture.background if rng.random() < 0.5 else None,
        style=picture.style if rng.random() < 0.25 else None,
    )
    return scene.sentence()


def train_teacher(shop: Workshop, seconds: float) -> bool:
    """Go on with the teacher's training."""
    chosen, state_file = shop.settings.flow, shop.result("flow.state")
    state = fresh_state(chosen, shop.settings.seed)
    if state_file.exists():
        state.load(state_file)
    done = train_flow(
        LatentPool(**load_file(shop.result("latents.safetensors"))),
        chosen,
        state,
        seed=shop.settings.seed,
        state_file=state_file,
        seconds=seconds,
        report=shop.reporter("teacher", chosen.num_steps),
    )
    if done:
        with whole_file(shop.result("networks.safetensors")) as unfinished:
            save_file(without_heads(state.ema.state_dict()), unfinished)
    return done


def read_networks(shop: Workshop) -> TeacherNetworks:
    """Load the running average of the teacher, trained or in training.

    Raises:
        ConfigError: There is none.
    """
    networks = build_networks(build_tokenizer())
    done, state = shop.result("networks.safetensors"), shop.result("flow.state")
    if done.exists():
        networks.load_state_dict(load_file(done))
    elif state.exists():
        networks.load_state_dict(without_heads(torch.load(state, weights_only=True)["ema"]))
    else:
        raise ConfigError(
            f"{shop.folder} holds no teacher. Train one: python -m tools.scenes train --output {shop.folder}"
        )
    return networks.eval().requires_grad_(False)


STAGES: dict[str, Callable[[Workshop], None]] = {
    "vae": make_autoencoder,
    "detector.safetensors": make_detector,
    "latents.safetensors": make_latents,
}
