"""Peak memory of a step against the plain formulation: python -m benchmarks.memory > docs/results/memory.json

Network and batch are those of ``benchmarks.training --protocol published``; schedules are short, because their length
changes no peak. One run measures both sides: bytes of tensors alive at once over a fake-score step and a student step,
text encoders included where they stay. Beside it the planner's prediction of ours, and what it is made of.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_trainer import draw_with_lengths, random_trainer
from benchmarks.networks import Size
from benchmarks.plain import PlainTrainer
from fewstep.data.prompts import load_prompts
from fewstep.planning.measured import PeakMeter, resident
from fewstep.planning.memory import predict
from fewstep.planning.planned_roles import PlannedRoles

LENGTHS = (1, 2)
SETTINGS = {
    "checkpointing": "true",
    "selective": "selective",  # which plain does not have
    "none": "false",
}


def peaks(size: Size, *, batch: int, checkpointing: str) -> dict[str, Any]:
    """Bytes at most of both sides with one kind of recomputation, and the prediction of ours."""
    overrides = [f"batch={batch}", f"memory.gradient_checkpointing={checkpointing}", "report.sheet_every=null"]
    with random_trainer(size, overrides, num_prompts=2 * batch) as trainer:
        trainer.draw = draw_with_lengths(trainer, LENGTHS)
        config, roles = trainer.config, trainer.roles
        networks = [role.network for role in (roles.student, roles.teacher, roles.fake_score)]
        predicted = predict(config, PlannedRoles(config), processes=1, accelerator=False)
        found: dict[str, Any] = {"ours": _peak(trainer.run_step, lambda: resident(networks, trainer.state_dict()))}
        if checkpointing != "selective":
            plain = PlainTrainer(config, trainer.adapter, load_prompts(config.prompts), trainer.draw)
            found["plain"] = _peak(plain.run_step, plain.resident)
    return {**found, "predicted": round(predicted.peak), "phase": predicted.phase, "parts": _rounded(predicted.parts)}


def _peak(step: Callable[[], object], there: Callable[[], Iterable[Tensor]]) -> int:
    for _ in LENGTHS:
        step()  # from then on torch's own optimisers have their moments too
    with PeakMeter(torch.device("cpu"), there()) as meter:
        for _ in LENGTHS:
            step()
    return meter.peak


def _rounded(parts: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    batch = parser.parse_args().batch
    torch.set_num_threads(1)
    found = {name: peaks(Size(), batch=batch, checkpointing=value) for name, value in SETTINGS.items()}
    print(json.dumps({"batch": batch, "settings": found}, indent=1))


if __name__ == "__main__":
    main()
