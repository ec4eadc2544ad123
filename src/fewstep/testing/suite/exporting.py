"""An exported student is a stock diffusers pipeline that draws what our own sampler draws."""

import inspect
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewstep.backbones import ModelAdapter, create_model_adapter
from fewstep.export import Exported, export_student
from fewstep.sampling import TextToImage, load_model
from fewstep.sampling.pictures import to_pil
from fewstep.testing.case import LEVELS, PROMPTS, Case
from fewstep.testing.closeness import assert_same_pictures


@dataclass
class _Student:
    """An exported student and what the example of its README made, run as a reader would.

    Attributes:
        case: The teacher.
        written: The student's folder and the printed code.
        readme: The variables of the example.
    """

    case: Case
    written: Exported
    readme: dict[str, Any]


class Exporting:
    @pytest.fixture(scope="class")
    @classmethod
    def student(cls, oblong: Case, tmp_path_factory: pytest.TempPathFactory) -> _Student:
        root = tmp_path_factory.mktemp("export")
        written = export_student(oblong.adapter, shaken(oblong.adapter), root / "student", levels=LEVELS)
        blocks = re.findall(r"```python\n(.*?)```", (written.folder / "README.md").read_text(), flags=re.DOTALL)
        assert len(blocks) == 1
        return _Student(oblong, written, run_code(blocks[0], root))

    @pytest.fixture(scope="class")
    @classmethod
    def ours(cls, student: _Student) -> TextToImage:
        """The student as we open it; drawing changes nothing of it."""
        return load_model(student.written.folder, "cpu")

    def test_stock_call_of_the_readme_draws_our_samplers_latents(self, student: _Student, ours: TextToImage) -> None:
        case = student.case
        noise = case.noise()
        drawn = ours.latents(list(PROMPTS), [0, 0], noise=noise)
        pipeline = student.readme["pipeline"]
        call = {
            "prompt": list(PROMPTS),
            "latents": case.family.pack(pipeline, noise),
            "output_type": "latent",
            **student.readme["call"],
        }
        stock = case.family.unpack(pipeline, case.family.stock_call(pipeline, call), *case.size)
        # a scheduler that makes the grid by itself has its levels up to the last bits of float32
        case.require_same_latents(drawn, stock, times=5)

    def test_the_readme_says_aloud_what_a_bare_call_would_do(self, student: _Student) -> None:
        case, needed = student.case, student.readme["call"]
        defaults = inspect.signature(type(case.pipeline).__call__).parameters
        told = (student.written.folder / "README.md").read_text().partition("`pipeline(prompt=...)` alone takes")[2]
        guidance = case.adapter.guidance
        for name in ("num_inference_steps", "sigmas", *(() if guidance.spelled_out else (guidance.argument,))):
            if name in needed and defaults[name].default != needed[name]:
                assert f"{name}={defaults[name].default!r}" in told

    def test_picture_of_the_readme_is_ours(self, student: _Student, ours: TextToImage) -> None:
        axes = student.case.family.noise_axes
        shape = axes(torch.empty(1, *ours.latent_shape)).shape
        start = axes(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        drawn = ours.latents(["a lighthouse on a cliff at dusk"], [0], noise=start)
        picture = to_pil(ours.pixels(drawn))[0]
        assert (len(picture) if isinstance(picture, list) else None) == student.case.adapter.frames
        _assert_drawn_alike(picture if isinstance(picture, list) else [picture], _drawn_by(student.readme))
        written = "picture.png" if student.case.adapter.frame_rate is None else "video.gif"
        assert (student.written.folder.parent / written).is_file()

    def test_printed_call_draws_the_same_picture_as_the_readme(self, student: _Student) -> None:
        printed = run_code(student.written.stock_call, student.written.folder.parent)
        _assert_drawn_alike(_drawn_by(printed), _drawn_by(student.readme))

    def test_exported_network_is_the_trained_one_and_not_the_teacher(self, student: _Student) -> None:
        reloaded = create_model_adapter(student.written.folder, as_teacher=False).load_network().state_dict()
        expected = shaken(student.case.adapter).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in reloaded.items())

    def test_grid_of_the_student_is_the_shifted_one_of_its_teacher(self, student: _Student) -> None:
        shifted = student.case.adapter.to_sigma(torch.tensor(LEVELS))
        torch.testing.assert_close(torch.tensor(_sigmas_of(student)), shifted, rtol=0, atol=0)

    def test_another_number_of_steps_still_uses_the_teachers_clock(self, student: _Student, ours: TextToImage) -> None:
        """The student's scheduler no longer shifts, so its own grid must come from the facts, never from its files."""
        shifted = student.case.adapter.to_sigma(torch.tensor([1.0, 0.5]))
        torch.testing.assert_close(ours.sigmas(2), shifted, rtol=1e-6, atol=1e-6)

    def test_number_of_steps_of_the_student_uses_its_own_grid(self, student: _Student, ours: TextToImage) -> None:
        assert ours.sigmas(len(LEVELS)).tolist() == torch.tensor(_sigmas_of(student)).tolist()


def shaken(adapter: ModelAdapter) -> nn.Module:
    """A student that is not its teacher."""
    network = adapter.load_network()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def _drawn_by(example: dict[str, Any]) -> list[Any]:
    """The picture that an example drew, without alpha where it has that, or the frames of its video."""
    return list(example["frames"]) if "frames" in example else [example["image"].convert("RGB")]


def _assert_drawn_alike(pictures: list[Any], expected: list[Any]) -> None:
    assert [picture.size for picture in pictures] == [picture.size for picture in expected]
    for picture, other in zip(pictures, expected, strict=True):
        assert_same_pictures(np.asarray(picture), np.asarray(other))


def _sigmas_of(student: _Student) -> list[float]:
    """The grid that its folder states."""
    facts = json.loads((student.written.folder / "fewstep.json").read_text())
    return [float(sigma) for sigma in facts["sigmas"]]


def run_code(code: str, folder: Path) -> dict[str, Any]:
    """Run example code in ``folder``, as a reader would, and return its variables."""
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, names)
    finally:
        os.chdir(before)
    return names
