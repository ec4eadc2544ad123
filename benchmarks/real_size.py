"""A whole run at a released model's real size, on a machine without a GPU: python -m benchmarks.real_size FOLDER

Random weights in the real configuration, so nothing is downloaded: check, plan, embed, LoRA updates, kill -9 behind a
checkpoint, resume, export and sample are the user's own commands, each in a process of its own, whose peak memory and
seconds are the system's count. What stands in FOLDER is used again, so that a stopped measurement goes on. sana-600m at
1024 px takes about half an hour on two cores and 10 GiB; --tiny shows in a minute that the program works.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import fewstep
from benchmarks.real_checkpoint import MODELS, make_checkpoint
from fewstep.files import write_json
from fewstep.runs.metrics import all_lines

PROMPTS = ("a red fox in the snow", "two blue cups on a table", "a lighthouse at night", "a bowl of cherries")
_LORA = "{kind: lora, rank: 16}"
_GIB = 2**30


class RealSize:
    """The commands of one measurement and what became of them.

    Args:
        folder: For the checkpoint, the run and everything else.
        recipe: One of :data:`~benchmarks.real_checkpoint.MODELS`.
        size: Pixels of a picture's side.
        compute: ``precision.compute``.
        tiny: Networks of a test's size.
    """

    def __init__(self, folder: Path, *, recipe: str, size: int, compute: str, tiny: bool) -> None:
        self.folder, self.recipe, self.tiny, self.size = folder, recipe, tiny, size
        self.model, self.run = folder / "teacher", folder / "run"
        self.stages: list[dict[str, Any]] = []
        self.settings = (
            f"backbone={{model: {self.model}, height: {size}, width: {size}}}",
            f"prompts.path={folder / 'prompts.txt'}",
            f"student.weights={_LORA}",
            f"fake_score.weights={_LORA}",
            f"precision.compute={compute}",
            "schedule.max_steps=4",  # a long simulation only repeats what a short one does
            "batch=1",
            "budget.student_updates=2",
            "checkpoint.every=1",
            "report={sheet_every: null, trackers: []}",
            "parallel.device=cpu",
            "memory.gradient_checkpointing=true",  # so that what is planned is what runs
        )

    def measure(self) -> dict[str, Any]:
        """Run every stage, and tell what each took."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
        counted: dict[str, int] | None = None
        if not self.model.is_dir():
            unfinished = self.folder / ".teacher"
            # in a process of its own: what this one ever held would count as the peak of every command it starts
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                counted = apart.submit(make_checkpoint, self.recipe, unfinished, tiny=self.tiny).result()
            unfinished.rename(self.model)
        student, drawn = self.folder / "student", self.folder / "drawn.png"
        self.stage("check", "check", str(self.model))
        plan = json.loads(self.stage("plan", "plan", self.recipe, *self.settings, "--memory", "24GiB", "--json"))
        self.stage("embed", "embed", self.recipe, *self.settings)
        self.train("train, killed behind its first checkpoint", killed=True)
        self.train("resume to the end", killed=False)
        self.stage("export factors", "export", str(self.run), "--format", "lora", "--output", f"{student}-lora")
        self.stage("export pipeline", "export", str(self.run), "--output", str(student))
        at = ("--size", f"{self.size}x{self.size}", "--device", "cpu", "--output", str(drawn))
        self.stage("sample", "sample", str(student), "--prompt", PROMPTS[0], *at)
        seconds = [line.figures["seconds"] for line in all_lines(self.run / "metrics.jsonl")]
        return {
            "fewstep": fewstep.__version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "recipe": self.recipe,
            "size": self.size,
            "tiny": self.tiny,
            "settings": [setting.replace(str(self.folder), "FOLDER") for setting in self.settings],
            "parameters": counted,
            "checkpoint_bytes": sum(path.stat().st_size for path in self.model.rglob("*") if path.is_file()),
            "shards": len(list(self.model.rglob("*-of-*.safetensors"))),
            "stages": self.stages,
            "planned": {name: plan[name] for name in ("peak_gib", "breakdown", "units_per_update", "settings")},
            # the last update alone: the first one warms up
            "seconds_per_unit": sum(seconds[-len(seconds) // 2 :]) / plan["units_per_update"],
        }

    def train(self, name: str, *, killed: bool) -> None:
        """Train to the end, or only until the first checkpoint is there."""
        until = self.run / "checkpoints" / "latest" if killed else None
        if until is not None and until.exists():
            return
        self.stage(name, "train", self.recipe, *self.settings, "--output", str(self.run), "--resume", kill_at=until)

    def stage(self, name: str, *command: str, kill_at: Path | None = None) -> str:
        """One command in a process of its own; gives what it printed.

        Raises:
            RuntimeError: It failed.
        """
        log = self.folder / f"{len(self.stages):02d}.log"
        started = time.perf_counter()
        with log.open("wb") as told:
            whole = [sys.executable, "-m", "fewstep", *command]
            process = subprocess.Popen(whole, stdout=told, stderr=told, cwd=self.folder)
            code, used = _waited(process.pid, kill_at)
        seconds, said = time.perf_counter() - started, log.read_text(errors="replace")
        if code != (0 if kill_at is None else -signal.SIGKILL):
            raise RuntimeError(f"{name} ended with {code}: {said[-2000:]}")
        row: dict[str, Any] = {
            "stage": name,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        }
        self.stages.append(row)
        print(
            f"{name:<42} {row['seconds']:>8.1f} s {row['cpu_seconds']:>8.1f} CPU s "
            f"{row['peak_bytes'] / _GIB:>6.2f} GiB",
            flush=True,
        )
        return said


def _waited(pid: int, kill_at: Path | None) -> tuple[int, Any]:
    """Exit code and use of a process; killed a moment after a file is there, in the middle of what comes next."""
    while kill_at is not None:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used
        if kill_at.exists():
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for checkpoint, run and logs: 8 GiB of disk for sana-600m")
    parser.add_argument("--recipe", choices=sorted(MODELS), default="sana-600m")
    parser.add_argument("--size", type=int, help="pixels; 1024, or 64 with --tiny")
    parser.add_argument("--compute", choices=("fp32", "bf16"), default="fp32", help="few CPUs are fast in bf16")
    parser.add_argument("--tiny", action="store_true", help="networks that a CPU does in seconds")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    given = parser.parse_args(arguments)
    size = given.size or (64 if given.tiny else 1024)
    measured = RealSize(given.folder.resolve(), recipe=given.recipe, size=size, compute=given.compute, tiny=given.tiny)
    found = measured.measure()
    if given.output is not None:
        write_json(given.output, found)


if __name__ == "__main__":
    main()
