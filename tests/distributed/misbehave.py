"""A training command in which one process does something at one step.

python -m torch.distributed.run ... -m tests.distributed.misbehave ACTION RANK STEP train RECIPE ...
"""

import os
import signal
import sys
from typing import Any

import torch.distributed as dist

from fewstep.cli.main import execute
from fewstep.errors import CheckpointError
from fewstep.runs import saving
from fewstep.training import guarding
from fewstep.training.trainer import StepReport, Trainer

SIGNALS = {
    "kill": signal.SIGKILL,
    "hang": signal.SIGSTOP,
    "terminate": signal.SIGTERM,
    "preempt": signal.SIGUSR1,
    "interrupt": signal.SIGINT,
}


def full_disk(file: object) -> None:
    raise OSError(28, "No space left on device", str(file))


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def act(action: str) -> None:
    if action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[action])
    elif action == "full-disk":
        saving._sealed = full_disk  # type: ignore[assignment]
    elif action == "kill-going-back":
        guarding._load = killed
    elif action == "fail":
        raise CheckpointError("The disk of this process is broken; replace it.")
    elif action == "poison":
        raise RuntimeError("a defect of one process")


def main(action: str, rank: int, step: int, arguments: list[str]) -> int:
    run_step = Trainer.run_step

    def stepped(trainer: Trainer, **asked: Any) -> StepReport:
        if trainer.step == step and dist.get_rank() == rank:
            act(action)
        return run_step(trainer, **asked)

    Trainer.run_step = stepped  # type: ignore[method-assign]
    return execute(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
