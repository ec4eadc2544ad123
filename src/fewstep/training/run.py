"""A whole training run: build everything, step until the budget is spent or a signal comes, leave a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch.distributed.device_mesh import DeviceMesh

from fewstep.backbones.lora_merge import teacher_files
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.registry import create_model_adapter
from fewstep.config.run_config import RunConfig
from fewstep.data.building import EmbeddingStoppedError
from fewstep.data.embeddings import EmbeddingCache, open_or_build
from fewstep.data.prompts import files_of_set, load_prompts
from fewstep.devices import DTYPES, choose_device, cpu_threads
from fewstep.distributed.sharding import build_mesh
from fewstep.distributed.world import World, join, launched_alone
from fewstep.health.guard import Alarm
from fewstep.planning.measured import PeakMeter, compared, predicted_peak, resident
from fewstep.roles.build import RoleSettings, build_roles, require_widened
from fewstep.roles.compilation import require_graphs
from fewstep.roles.quantised import require_quantised
from fewstep.runs.checkpoint import load_checkpoint, require_own_name
from fewstep.runs.folder import RunFolder, run_place
from fewstep.runs.places import checkpoints, completed_steps
from fewstep.runs.saving import save_checkpoint
from fewstep.training.guarding import Guarding, Probe
from fewstep.training.noise_levels import require_fitting_levels
from fewstep.training.preparing import require_files, require_moments, tell_of_precision, with_recomputation
from fewstep.training.report import Reporter
from fewstep.training.signals import StopRequest, stop_on_signals
from fewstep.training.trackers import Trackers, require_trackers, tracked_run
from fewstep.training.trainer import Trainer
from fewstep.training.watching import Watchers, due, prepare_watchers

if TYPE_CHECKING:
    from fewstep.config.recipe import Recipe


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
        UnhealthyError: The recipe asks to stop when a signal of its health fires, and one does; the run was saved.
        KeyboardInterrupt: Ctrl-C; the run was saved and ``resume`` goes on.
    """
    config = recipe.config
    console = console or Console(stderr=True)
    alone_by_mistake = launched_alone()
    if alone_by_mistake:
        console.print(f"Warning: {alone_by_mistake}", style="yellow")
    with (
        stop_on_signals() as stop,
        cpu_threads(config.parallel.threads),
        join(choose_device(config.parallel.device), timeout_minutes=config.parallel.timeout_minutes) as world,
    ):
        if not world.is_main:
            console = Console(quiet=True)
        tell = partial(console.print, markup=False)
        world.from_main(lambda: require_trackers(config.report.trackers))
        settings = role_settings(config)
        require_quantised(settings.factors, world)
        require_graphs(settings.compiled, world)
        require_moments(config, world)
        mesh = build_mesh(
            world,
            shard=config.parallel.shard,
            replicate=config.parallel.replicate,
            alone=settings.spread_alone,
        )
        require_widened(settings, world, mesh)
        prompts = load_prompts(config.prompts, tell=tell)
        adapter = create_model_adapter(config.backbone.model, config.backbone)
        require_fitting_levels(config, adapter)
        world.from_main(lambda: require_files(adapter, config.student.init))
        place = run_place(root, recipe.name, config) if output is None else Path(output)
        recipe = with_recomputation(recipe, adapter, world, earlier=place if resume else None, tell=tell)
        config = recipe.config
        with _run_folder(world, recipe, root=root, output=output, resume=resume) as folder:
            embeddings = _embed(world, folder, adapter, prompts, config, stop, console)
            watchers = prepare_watchers(config, adapter, prompts, embeddings, folder.path)
            trainer = _build_trainer(config, adapter, embeddings, world, mesh)
            tell_of_precision(config.precision.compute, world.device, trainer.roles.teacher.network, tell)
            newest = _restore(trainer, folder)
            guarding = _guarding(config, adapter, prompts, embeddings, folder, world, console)
            if guarding is not None:
                guarding.resume(trainer, newest)
            with _told_what_is_saved(folder, console):
                _loop(trainer, folder, watchers(world), guarding, stop, console)
    if stop.interrupted:
        raise KeyboardInterrupt
    return folder


@contextmanager
def _run_folder(
    world: World, recipe: "Recipe", *, root: str | Path, output: str | Path | None, resume: bool
) -> Iterator[RunFolder]:
    """The run's folder: made and locked by the main process, known to all."""
    own: list[RunFolder] = []

    def create() -> Path:
        files = teacher_files(recipe.config.backbone) | files_of_set(recipe.config.prompts)
        own.append(RunFolder.create(root, recipe.name, recipe.config, resume=resume, path=output, files=files))
        return own[0].path

    path = world.from_main(create)
    with own[0] if own else nullcontext(RunFolder(path, recipe.config)) as folder:
        yield folder


def _embed(
    world: World,
    folder: RunFolder,
    adapter: ModelAdapter,
    prompts: tuple[str, ...],
    config: RunConfig,
    stop: StopRequest,
    console: Console,
) -> EmbeddingCache:
    """The prompts' embeddings, built by all processes when they are not there."""
    place = folder.path.parent / ".cache" / "embeddings"

    def progress(done: int, total: int) -> None:
        status.update(f"Embedding prompts: {done} of {total}")
        if stop:
            raise EmbeddingStoppedError(stop.interrupted)

    try:
        with console.status("Embedding prompts") as status:
            return open_or_build(
                place,
                adapter,
                prompts,
                device=world.device,
                dtype=DTYPES[config.precision.compute],
                processes=world,
                on_estimate=lambda estimate: console.print(estimate.sentence(place), highlight=False),
                on_progress=progress,
            )
    except EmbeddingStoppedError as stopped:
        console.print("Stopped while prompts were embedded; nothing was trained yet, and the same command goes on.")
        raise (KeyboardInterrupt if stopped.interrupted else SystemExit(0)) from None


def role_settings(config: RunConfig) -> RoleSettings:
    """How a recipe holds its networks."""
    return RoleSettings(
        student=config.student.weights,
        fake_score=config.fake_score.weights,
        compute=DTYPES[config.precision.compute],
        frozen=DTYPES[config.precision.held],
        checkpointing=config.memory.recomputation,
        offload_teacher=config.memory.offload.teacher,
        offload_trained=config.memory.offload.trained,
        prefetch=config.memory.prefetch,
        compiled=config.memory.compiled,
        seed=config.seed,
        start=config.student.init,
    )


def _build_trainer(
    config: RunConfig,
    adapter: ModelAdapter,
    embeddings: EmbeddingCache,
    world: World,
    mesh: DeviceMesh | None,
) -> Trainer:
    roles = build_roles(adapter, role_settings(config), world, mesh)
    return Trainer(config, adapter, roles, embeddings, world.device, world=world)


def _guarding(
    config: RunConfig,
    adapter: ModelAdapter,
    prompts: tuple[str, ...],
    embeddings: EmbeddingCache,
    folder: RunFolder,
    world: World,
    console: Console,
) -> Guarding | None:
    if config.health is None:
        return None
    asked = config.health.probe
    probe = None if asked is None else Probe(config, asked, adapter, prompts, embeddings, world.device)
    return Guarding(config, config.health, folder, probe, console)


def _restore(trainer: Trainer, folder: RunFolder) -> Path | None:
    """Load the newest checkpoint, if there is one."""
    found = trainer.world.from_main(lambda: checkpoints(folder.checkpoints))
    if not found:
        return None
    state = trainer.state_dict()
    load_checkpoint(found[-1], state, trainer.world)
    trainer.load_state_dict(state)
    require_own_name(found[-1], trainer.step)
    return found[-1]


def _reporter(trainer: Trainer, folder: RunFolder, console: Console) -> Reporter | None:
    if not trainer.world.is_main:
        return None
    config, first_step = trainer.config, trainer.step
    run, tell = tracked_run(config, folder, first_step=first_step), partial(console.print, markup=False)
    return Reporter(
        folder.metrics,
        first_step=first_step,
        total_steps=trainer.total_steps,
        steps_per_update=config.student.every,
        log_every=config.report.log_every,
        trackers=Trackers(config.report.trackers, run, tell),
        console=console,
    )


def _loop(
    trainer: Trainer,
    folder: RunFolder,
    watchers: Watchers,
    guard: Guarding | None,
    stop: StopRequest,
    console: Console,
) -> None:
    reporter = _reporter(trainer, folder, console)
    stopped = False
    with reporter or nullcontext():
        meter = _first_update_meter(trainer)
        while trainer.step < trainer.total_steps and not stopped:
            with meter or nullcontext():
                report = trainer.run_step(stop=bool(stop))
            if meter is not None and report.student_updated:
                predicted = predicted_peak(trainer.config, processes=trainer.world.size, device=trainer.device)
                console.print(compared(predicted, meter.peak), highlight=False)
                meter = None
            stopped = report.stop or (trainer.world.size == 1 and bool(stop))
            if reporter is not None:
                reporter.step(report)
            if report.student_updated:
                with nullcontext() if reporter is None else reporter.paused():
                    alarm = None if guard is None else guard.look(trainer, report, reporter)
                    if guard is None or alarm is None:
                        _look_and_save(trainer, folder, watchers, guard, reporter)
                    else:
                        _act(trainer, folder, guard, alarm, reporter)
        _save(trainer, folder, guard)
    if stopped and trainer.step < trainer.total_steps:
        console.print(f"Stopped at step {trainer.step} of {trainer.total_steps} and saved; go on with --resume.")


@contextmanager
def _told_what_is_saved(folder: RunFolder, console: Console) -> Iterator[None]:
    """When a second Ctrl-C does not wait for the save: say from where a resume goes on."""
    try:
        yield
    except KeyboardInterrupt:
        whole = checkpoints(folder.checkpoints)
        kept = f"its newest checkpoint, {whole[-1].name}, is whole" if whole else "nothing was saved yet"
        console.print(f"Interrupted before the run was saved; {kept}. Go on with --resume.", soft_wrap=True)
        raise


def _first_update_meter(trainer: Trainer) -> PeakMeter | None:
    """Measures the memory of a new run until its first student update; None for a run that goes on.

    A GPU's allocator counts by itself; elsewhere counting slows these steps twenty times, so it has to be asked for.
    """
    counted = trainer.device.type == "cuda" or trainer.config.report.memory
    if trainer.step or not trainer.world.is_main or not counted:
        return None
    roles = trainer.roles
    networks = [roles.student.network, roles.teacher.network, roles.fake_score.network]
    return PeakMeter(trainer.device, resident(networks, trainer.state_dict()))


def _look_and_save(
    trainer: Trainer, folder: RunFolder, watchers: Watchers, guarding: Guarding | None, reporter: Reporter | None
) -> None:
    """After a student update: the sheet, the metrics and the checkpoint that are due."""
    found = watchers.look(trainer, folder.sheets)
    if found is not None and reporter is not None:
        reporter.note(trainer.step - 1, found.figures)
    is_best = found is not None and found.improved
    if is_best or due(trainer.student_updates, trainer.config.checkpoint.every):
        _save(trainer, folder, guarding, is_best=is_best)


def _act(trainer: Trainer, folder: RunFolder, guarding: Guarding, alarm: Alarm, reporter: Reporter | None) -> None:
    """After an alarm: go back, or save and stop."""
    goal = guarding.goal(trainer)
    if goal is None:
        _save(trainer, folder, guarding)
        raise guarding.stopped(trainer, alarm)
    guarding.go_back(trainer, alarm, goal, reporter)


def _save(trainer: Trainer, folder: RunFolder, guarding: Guarding | None, *, is_best: bool = False) -> None:
    save_checkpoint(
        folder.checkpoints,
        trainer.state_dict(),
        step=trainer.step,
        keep_last=trainer.config.checkpoint.keep_last,
        is_best=is_best,
        is_healthy=guarding is not None and guarding.keeps_this,
        about=_about(trainer, folder, guarding) if trainer.world.is_main else None,
        world=trainer.world,
    )


def _about(trainer: Trainer, folder: RunFolder, guarding: Guarding | None) -> dict[str, Any]:
    """What a checkpoint says of itself: settings, versions and revision of the code that wrote it, and health."""
    about = {"config": trainer.config.model_dump(mode="json"), "session": folder.facts["sessions"][-1]}
    return about if guarding is None else {**about, "health": guarding.about()}


def steps_left(folder: RunFolder) -> int:
    """Steps that a run's newest checkpoint lacks to its budget; above zero after a request to stop."""
    found = checkpoints(folder.checkpoints)
    budget = folder.config.budget.student_updates * folder.config.student.every
    return max(0, budget - (completed_steps(found[-1]) if found else 0))
