"""Teacher and student at four steps on grids of several time shifts: python -m benchmarks.grids STUDENT

A shift of 1 spaces the four levels evenly; 3 is the shift of Stable Diffusion 3. Student and teacher are drawn on each
grid, the teacher at the guidance with its best Frechet distance, by the demo's protocol with its first noise seed. The
result goes to docs/results/grids.json, from which `python -m benchmarks.tables` writes the table of docs/demo.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.core.flow import time_shift
from fewstep.demo.protocol import NOISE_SEEDS, Judge, draw_with
from fewstep.demo.rows import load_judge, load_teacher
from fewstep.sampling.generate import TextToImage, load_generator
from tools.embedded_teacher.rows import GUIDANCES, best_guidance, distance

SHIFTS = (1.0, 1.5, 2.0, 3.0, 4.0)
EVEN = (1.0, 0.75, 0.5, 0.25)
FIRST = NOISE_SEEDS[0]


def measured(judge: Judge, model: TextToImage, sigmas: Tensor, guidance: float) -> dict[str, Any]:
    """The figures of a model on one grid, with one noise seed."""
    draw = draw_with(model, sigmas=sigmas, guidance_scale=guidance)
    row, _ = judge.measure_model(draw, guidance=guidance, noise_seeds=[FIRST])
    return row.to_json()


def teacher_guidance(judge: Judge, teacher: TextToImage, sigmas: Tensor) -> float:
    """The guidance scale with the teacher's best Frechet distance on a grid."""
    prompts, seeds = judge.full.prompts, judge.full.seeds(FIRST)
    draws = {scale: draw_with(teacher, sigmas=sigmas, guidance_scale=scale) for scale in GUIDANCES}
    return best_guidance({scale: distance(judge, draw(prompts, seeds)) for scale, draw in draws.items()})


def compare(student: TextToImage) -> list[dict[str, Any]]:
    """Both models on every grid."""
    judge, teacher = load_judge(), load_teacher()
    found = []
    for shift in SHIFTS:
        sigmas = time_shift(torch.tensor(EVEN), shift)
        scale = teacher_guidance(judge, teacher, sigmas)
        found.append(
            {
                "shift": shift,
                "sigmas": [round(float(sigma), 4) for sigma in sigmas],
                "teacher": measured(judge, teacher, sigmas, scale),
                "student": measured(judge, student, sigmas, 1.0),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="an exported student of the demo, a folder")
    parser.add_argument("--output", type=Path, default=Path("docs/results/grids.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = compare(load_generator(arguments.student, "cpu"))
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
