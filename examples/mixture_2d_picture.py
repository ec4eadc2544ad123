"""The picture of :mod:`examples.mixture_2d`: trajectories, and what one update asks of the student."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from examples.mixture_2d import MODES, Network, Snapshot, one_hot, path, teacher
from fewstep.core import objectives
from fewstep.core.points import NoisyLatent, extrapolate, renoise

PANEL, SPAN, FINER = 300, 2.7, 2  # pixels of a panel, units from its middle to its edge, lines drawn finer and reduced
PAPER, INK, PALE, MODE = "white", (40, 40, 48), (176, 180, 190), (226, 229, 236)
CLASSES = ((213, 94, 0), (0, 114, 178))
DIRECTIONS = {"ca": (204, 51, 63), "dm": (0, 114, 178), "cdm": (0, 140, 90)}
ARROW = 0.4  # units of the plane for a direction as long as the student's error
SHOWN, ASKED = 60, 5  # trajectories in a panel; samples whose update is shown
Colour = str | tuple[int, int, int]


class Panel:
    """A square of the plane with a title."""

    def __init__(self, title: str) -> None:
        self.image = Image.new("RGB", (PANEL * FINER, PANEL * FINER), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        for mode in MODES:
            self.dot(mode, 15, MODE)
        self.draw.text((10 * FINER, 7 * FINER), title, fill=INK, font=ImageFont.load_default(12 * FINER))

    def at(self, point: Tensor) -> tuple[float, float]:
        """Pixels of a point of the plane."""
        x, y = (point / SPAN + 1).tolist()
        return x * PANEL * FINER / 2, (2 - y) * PANEL * FINER / 2

    def dot(self, point: Tensor, radius: float, fill: Colour | None, outline: Colour | None = None) -> None:
        """A disc, or a ring."""
        (x, y), r = self.at(point), radius * FINER
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=FINER)

    def line(self, states: Tensor, colour: Colour, *, width: int = 1) -> None:
        """A line through points, ``(n, 2)``."""
        self.draw.line([self.at(state) for state in states], fill=colour, width=width * FINER)

    def arrow(self, start: Tensor, change: Tensor, colour: Colour) -> None:
        """An arrow from a point."""
        end = start + change
        along = change / change.norm().clamp(min=1e-6) * min(0.09, float(change.norm()))
        across = torch.stack([-along[1], along[0]]) / 2
        self.line(torch.stack([start, end]), colour, width=2)
        self.draw.polygon(
            [self.at(end + along / 2), self.at(end - along + across), self.at(end - along - across)], colour
        )

    def paths(self, states: Tensor) -> Panel:
        """Trajectories ``(steps + 1, b, 2)`` of both classes in turn, and where they end."""
        for j in range(SHOWN):
            self.line(states[:, j], PALE)
        for j in range(states.shape[1]):
            self.dot(states[-1, j], 1.6, CLASSES[j % 2])
        return self


@torch.no_grad()
def one_update(snapshot: Snapshot, generator: torch.Generator) -> Panel:
    """For a few samples: trajectory, anchor, off-trajectory query, the student's answers, and the three directions.

    The formulas of :mod:`fewstep.methods.cdm`, written out once for the picture.
    """
    panel = Panel("one update:")
    for place, (name, colour) in enumerate(DIRECTIONS.items()):
        font = ImageFont.load_default(12 * FINER)
        panel.draw.text(((80 + 30 * place) * FINER, 7 * FINER), name, fill=colour, font=font)
    classes = torch.arange(ASKED) % 2
    cond, null = one_hot(classes), one_hot(torch.full((ASKED,), 2))
    student, fake = snapshot.student, snapshot.fake_score
    states = path(student, classes, levels=(1.0, 0.8, 0.6, 0.4, 0.2), seed=8)
    anchor = NoisyLatent(states[2], torch.full((ASKED,), 0.6))
    velocity = student(anchor, cond)
    query = extrapolate(anchor, velocity, sigma=0.15 + 0.75 * torch.rand(ASKED, generator=generator))
    answers = {"ca": anchor.x0(velocity), "dm": anchor.x0(velocity), "cdm": query.x0(student(query, cond))}
    for j in range(ASKED):
        panel.line(states[:3, j], PALE, width=2)
        panel.line(torch.stack([anchor.x_sigma[j], query.x_sigma[j]]), MODE, width=2)
        panel.dot(anchor.x_sigma[j], 3.5, INK)
        panel.dot(query.x_sigma[j], 4, PAPER, DIRECTIONS["cdm"])
    for name, colour in DIRECTIONS.items():
        x0 = answers[name]
        below = anchor.sigma if name == "ca" else torch.ones(ASKED)
        sigma = (torch.rand(ASKED, generator=generator) * below).clamp(0.02, 0.98)
        probe = renoise(x0, sigma=sigma, noise=torch.randn(ASKED, 2, generator=generator))
        x0_teacher = probe.x0(teacher(probe, cond))
        if name == "ca":
            direction = objectives.cfg_augmentation(x0_teacher - probe.x0(teacher(probe, null)), scale=2.0)
        else:
            direction = objectives.distribution_matching(x0_teacher, probe.x0(fake(probe, cond)))
        size = objectives.normaliser(x0_teacher, x0, floor=objectives.NORMALISER_FLOOR)
        for j in range(ASKED):
            panel.arrow(x0[j], ARROW * direction[j] / size[j], colour)
            panel.dot(x0[j], 2, colour)
    return panel


@dataclass
class Film:
    """Four panels that follow a training; the student's noise and the update's draws are the same in every frame."""

    teacher_50: tuple[float, ...]
    frames: list[Image.Image] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._classes = torch.arange(400) % 2
        self._still = (
            Panel("teacher, 50 steps").paths(path(teacher, self._classes, levels=self.teacher_50)),
            Panel("teacher, 4 steps").paths(path(teacher, self._classes)),
        )

    def add(self, snapshot: Snapshot) -> None:
        """Draw the student as it is now."""
        student: Network = snapshot.student
        now = Panel(f"student, 4 steps, after {snapshot.updates} updates").paths(path(student, self._classes))
        update = one_update(snapshot, torch.Generator().manual_seed(2))
        frame = Image.new("RGB", (2 * PANEL * FINER + FINER, 2 * PANEL * FINER + FINER), PALE)
        for place, panel in enumerate((*self._still, now, update)):
            frame.paste(panel.image, (place % 2 * (PANEL * FINER + FINER), place // 2 * (PANEL * FINER + FINER)))
        small = frame.resize((2 * PANEL + 1, 2 * PANEL + 1), Image.Resampling.LANCZOS)
        # this way of choosing a palette keeps the colours of few pixels
        self.frames.append(small.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))

    def save(self, path: Path) -> None:
        """Write an animated GIF; its last frame stays for two seconds."""
        durations = [*[120] * (len(self.frames) - 1), 2000]
        self.frames[0].save(path, save_all=True, append_images=self.frames[1:], duration=durations, loop=0)
