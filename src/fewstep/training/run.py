"""A whole training run: build everything, step until the budget is spent or a signal comes, leave a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.registry import create_model_adapter
from fewstep.config.run_config import ParallelConfig, RunConfig
from fewstep.data.embeddings import EmbeddingCache, open_or_build
from fewstep.data.prompts import load_prompts
from fewstep.errors import CheckpointError, ConfigError
from fewstep.roles.averaging import swapped
from fewstep.roles.build import build_roles
from fewstep.runs.folder import RunFolder
from fewstep.training.checkpoint import (
    checkpoints,
    completed_steps,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)
from fewstep.training.fit import require_fitting_levels
from fewstep.training.report import Reporter
from fewstep.training.sheets import SheetPainter
from fewstep.training.signals import StopRequest, stop_on_signals
from fewstep.training.trainer import Trainer

if TYPE_CHECKING:
    from fewstep.config.recipe import Recipe

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    recipe: "Recipe",
    *,
    root: str | Path = "runs",
    output: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> RunFolder:
    """Distil the recipe's teacher, or go on with a run that stopped.

    Args:
        recipe: What ``load_recipe`` returned.
        root: Folder that holds the runs; the run is ``root/RECIPE-HASH``.
        output: The run's folder itself, instead of ``root``.
        resume: Go on from the newest checkpoint; starts when there is none.
        console: Where progress is shown; standard error unless given.

    Returns:
        The run's folder: checkpoints, metrics.jsonl, sample sheets, resolved settings.

    Raises:
        ConfigError: Something the user asked for cannot be done.
        CheckpointError: A checkpoint is damaged, or one could not be written.
        NonFiniteError: A loss or gradient was not finite; no weight moved.
        KeyboardInterrupt: Ctrl-C; the run was saved and ``resume`` goes on.
    """
    config = recipe.config
    console = console or Console(stderr=True)
    prompts = load_prompts(config.prompts)
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    require_fitting_levels(config, adapter)
    device = choose_device(config.parallel)
    with (
        stop_on_signals() as stop,
        _cpu_threads(config.parallel),
        RunFolder.create(root, recipe.name, config, resume=resume, path=output) as folder,
    ):
        embeddings = _embed(folder, adapter, prompts, config, device, stop, console)
        trainer = _build_trainer(config, adapter, embeddings, device)
        _restore(trainer, folder)
        painter = _painter(config, adapter, prompts, embeddings, device)
        _loop(trainer, folder, painter, stop, console)
    if stop.interrupted:
        raise KeyboardInterrupt
    return folder


def choose_device(parallel: ParallelConfig) -> torch.device:
    """The device a recipe asks for; ``auto`` takes CUDA, then Apple's, then the CPU.

    Raises:
        ConfigError: It asks for one that is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if parallel.device == "auto":
        return torch.device(next(name for name, found in here.items() if found))
    if not here[parallel.device]:
        raise ConfigError(
            f"parallel.device is {parallel.device}, which PyTorch does not find on this machine; "
            f"use parallel.device=auto, or install the PyTorch build for it."
        )
    return torch.device(parallel.device)


@contextmanager
def _cpu_threads(parallel: ParallelConfig) -> Iterator[None]:
    """Compute with the recipe's number of CPU threads, and give the caller's back."""
    before = torch.get_num_threads()
    if parallel.threads is not None:
        torch.set_num_threads(parallel.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _embed(
    folder: RunFolder,
    adapter: ModelAdapter,
    prompts: tuple[str, ...],
    config: RunConfig,
    device: torch.device,
    stop: StopRequest,
    console: Console,
) -> EmbeddingCache:
    def progress(done: int, total: int) -> None:
        status.update(f"Embedding prompts: {done} of {total}")
        if stop:
            console.print(
                "Stopped while prompts were embedded; nothing was trained yet, so the same command starts over."
            )
            raise KeyboardInterrupt if stop.interrupted else SystemExit(0)

    with console.status("Embedding prompts") as status:
        return open_or_build(
            folder.path.parent / ".cache" / "embeddings",
            adapter,
            prompts,
            device=device,
            dtype=COMPUTE[config.precision.compute],
            on_progress=progress,
        )


def _build_trainer(
    config: RunConfig, adapter: ModelAdapter, embeddings: EmbeddingCache, device: torch.device
) -> Trainer:
    roles = build_roles(
        adapter,
        device=device,
        compute=COMPUTE[config.precision.compute],
        gradient_checkpointing=config.gradient_checkpointing,
    )
    return Trainer(config, adapter, roles, embeddings, device)


def _restore(trainer: Trainer, folder: RunFolder) -> None:
    found = checkpoints(folder.checkpoints)
    if found:
        state = trainer.state_dict()
        load_checkpoint(found[-1], state)
        trainer.load_state_dict(state)


def _painter(
    config: RunConfig,
    adapter: ModelAdapter,
    prompts: tuple[str, ...],
    embeddings: EmbeddingCache,
    device: torch.device,
) -> SheetPainter | None:
    if config.report.sheet_every is None:
        return None
    count = min(config.report.sheet_prompts, len(prompts))
    vae = adapter.load_vae(dtype=torch.float32).to(device)
    chosen = range(0, len(prompts), max(1, len(prompts) // count))[:count]
    return SheetPainter(
        config, adapter, vae, [prompts[i] for i in chosen], embeddings.batch(list(chosen)), embeddings.null
    )


def _loop(
    trainer: Trainer, folder: RunFolder, painter: SheetPainter | None, stop: StopRequest, console: Console
) -> None:
    config = trainer.config
    reporter = Reporter(
        folder.metrics,
        first_step=trainer.step,
        total_steps=trainer.total_steps,
        steps_per_update=config.student.every,
        log_every=config.report.log_every,
        tensorboard=folder.tensorboard if config.report.tensorboard else None,
        console=console,
    )
    with reporter:
        while trainer.step < trainer.total_steps and not stop:
            report = trainer.run_step()
            reporter.step(report)
            with reporter.paused():
                if report.student_updated and painter is not None:
                    _paint(trainer, painter, folder)
                if report.student_updated and _due(trainer, config.checkpoint.every):
                    _save(trainer, folder)
        _save(trainer, folder)
    if stop and trainer.step < trainer.total_steps:
        console.print(f"Stopped at step {trainer.step} of {trainer.total_steps} and saved; go on with --resume.")


def _due(trainer: Trainer, every: int | None) -> bool:
    return every is not None and trainer.student_updates % every == 0


def _save(trainer: Trainer, folder: RunFolder) -> None:
    save_checkpoint(
        folder.checkpoints, trainer.state_dict(), step=trainer.step, keep_last=trainer.config.checkpoint.keep_last
    )


def _paint(trainer: Trainer, painter: SheetPainter, folder: RunFolder) -> None:
    if _due(trainer, trainer.config.report.sheet_every):
        path = folder.sheets / f"update-{trainer.student_updates:06d}.png"
        student = trainer.roles.student
        with swapped(trainer.student_weights(), trainer.export_weights()):
            painter.paint(path, student=student, teacher=trainer.roles.teacher)


def steps_left(folder: RunFolder) -> int:
    """Steps that a run's newest checkpoint lacks to its budget; above zero after a request to stop."""
    found = checkpoints(folder.checkpoints)
    budget = folder.config.budget.student_updates * folder.config.student.every
    return max(0, budget - (completed_steps(found[-1]) if found else 0))


def load_student(run: str | Path) -> tuple[RunFolder, dict[str, torch.Tensor]]:
    """Read what a run's newest checkpoint holds for export: the student's average, or its weights without one.

    Raises:
        ConfigError: The folder holds no run.
        CheckpointError: It has no checkpoint yet, or the newest is damaged.
    """
    folder = RunFolder.open(run)
    found = checkpoints(folder.checkpoints)
    if not found:
        raise CheckpointError(
            f"The run {folder.path} has no checkpoint yet; train it first: fewstep train RECIPE --resume."
        )
    section = "student" if folder.config.student.ema is None else "ema"
    return folder, load_tensors(found[-1], section)
