"""Teacher and student at four steps on grids of several time shifts: python -m benchmarks.grids STUDENT

A shift of 1 spaces the four levels evenly; 3 is the shift of Stable Diffusion 3. Student and teacher are drawn on each
grid, the teacher at the guidance with its best Frechet distance, by the demo's protocol with its first noise seed. The
result goes to docs/results/grids.json, from which `python -m benchmarks.tables` writes the table of docs/demo.md.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep.core.flow import time_shift
from fewstep.demo.protocol import Protocol
from fewstep.demo.shipped_rows import read_rows
from fewstep.sampling.model_spec import ModelSpec
from tools.embedded_teacher.rows import measure_teacher

SHIFTS = (1.0, 1.5, 2.0, 3.0, 4.0)
EVEN = (1.0, 0.75, 0.5, 0.25)


def compare(student: str, work: Path) -> list[dict[str, Any]]:
    """Both models on every grid, with the first noise seed."""
    protocol = Protocol(read_rows().real_diversity)
    protocol = replace(protocol, noise_seeds=protocol.noise_seeds[:1])
    found = []
    for shift in SHIFTS:
        sigmas = tuple(time_shift(torch.tensor(EVEN), shift).tolist())
        teacher = ModelSpec(model="fewstep:digits", sigmas=sigmas)
        (drawn,) = protocol.measure(ModelSpec(model=student, sigmas=sigmas, guidance_scale=1.0), work)
        found.append(
            {
                "shift": shift,
                "sigmas": [round(sigma, 4) for sigma in sigmas],
                "teacher": measure_teacher(protocol, teacher, work).row.to_json(),
                "student": drawn.to_json(),
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
    with tempfile.TemporaryDirectory() as work:
        found = compare(arguments.student, Path(work))
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
