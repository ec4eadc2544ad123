"""Student updates of the real trainer on a random network, timed and weighed on a device beside the planner's figures.

Times are those of the device: events around the work, read when it is done. Memory is what torch's allocator counted.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.bench_trainer import draw_with_lengths
from benchmarks.on_device import RandomPrompts, random_adapter
from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.config.recipe import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.devices import DTYPES
from fewstep.distributed.rounds import Round
from fewstep.distributed.sharding import build_mesh
from fewstep.distributed.world import alone, join
from fewstep.methods.draws import Draws
from fewstep.planning.cost import forward_units
from fewstep.planning.measured import PeakMeter, resident
from fewstep.planning.measurements import Card, Update
from fewstep.planning.memory import predict, split
from fewstep.planning.planned_roles import PlannedRoles
from fewstep.roles.build import build_roles
from fewstep.roles.compilation import Compilation
from fewstep.training.run import role_settings
from fewstep.training.trainer import Trainer

_LORA = "{kind: lora, rank: RANK, alpha: 128}"


@dataclass
class Bench:
    """Where and how large everything is measured.

    Attributes:
        tiny: Shrink networks, pictures and counts to what a CPU does in seconds.
        left: Seconds that the case which runs now still has; how often something is repeated depends on it.
    """

    device: torch.device
    card: Card
    tiny: bool
    left: Callable[[], float] = lambda: float("inf")
    _planned: dict[str, PlannedRoles] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def lengths(self) -> Sequence[int]:
        """Of the schedules of one student update's steps: 14.5 levels, as drawn ones have on average."""
        return (1, 2) if self.tiny else (14, 15)

    def utilisation(self, teraflops: float, compute: str) -> float | None:
        peak = self.card.peak_teraflops.get(compute)  # type: ignore[call-overload]
        return None if peak is None else teraflops / peak

    def seconds(self, work: Callable[[], object]) -> float:
        """How long the device takes from the start of some work to its end."""
        if not self.on_gpu:
            started = time.perf_counter()
            work()
            return time.perf_counter() - started
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self.device)
        first.record()
        work()
        last.record()
        torch.cuda.synchronize(self.device)
        return float(first.elapsed_time(last)) / 1000

    def repeated(self, work: Callable[[], object], most: int) -> list[float]:
        """Seconds of up to ``most`` repetitions, at least one, as the case's time allows."""
        took = [self.seconds(work)]
        while not self.tiny and len(took) < most and 1.5 * took[-1] < self.left():
            took.append(self.seconds(work))
        return took

    def planned(self, config: RunConfig, adapter: DiffusersAdapter) -> PlannedRoles:
        """The planner's networks, which serve every case that trains the same weights."""
        key = repr((config.backbone, config.student.weights, config.fake_score.weights, config.precision.compute))
        if key not in self._planned:
            self._planned[key] = PlannedRoles(config, adapter)
        return self._planned[key]

    def settings(self, *overrides: str) -> list[str]:
        """Settings of every case: no pictures in between, and the tiny size."""
        sizes = ("height=64", "width=64", "max_sequence_length=3")
        return ["report.sheet_every=null", *(f"backbone.{size}" for size in sizes if self.tiny), *overrides]

    def free(self) -> None:
        """Let go of what nobody holds any more."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Training:
    """Student updates of one recipe under some settings; two rounds each, as larger batches are split too."""

    recipe: str
    trains: str = "lora"
    checkpointing: bool | str = True
    microbatch: int = 1
    compute: str = "bf16"
    compiled: Compilation = False
    spread: bool = True

    @property
    def name(self) -> str:
        kinds = {True: "checkpointing", False: "no checkpointing", "selective": "selective"}
        compiled = f"compiled {self.compiled}".removesuffix(" True")
        others = [compiled] * bool(self.compiled) + ["not spread"] * (not self.spread)
        words = (self.recipe, self.trains, kinds[self.checkpointing], f"microbatch {self.microbatch}", self.compute)
        return ", ".join([*words, *others])

    def config(self, bench: Bench, *, rounds: int = 2) -> RunConfig:
        microbatch = min(self.microbatch, 2) if bench.tiny else self.microbatch
        weights = "{kind: full}" if self.trains == "full" else _LORA.replace("RANK", "4" if bench.tiny else "64")
        settings = bench.settings(
            *(f"{role}.weights={weights}" for role in ("student", "fake_score")),
            f"batch={rounds * microbatch}",
            f"memory.microbatch={'null' if rounds == 1 else microbatch}",
            f"memory.gradient_checkpointing={str(self.checkpointing).lower()}",
            f"memory.compiled={str(self.compiled).lower()}",
            f"precision.compute={self.compute}",
        )
        return load_recipe(self.recipe, settings).config

    def measure(self, bench: Bench) -> dict[str, Any]:
        config = self.config(bench)
        with random_weights_trainer(bench, config, spread=self.spread) as trainer:
            spread = self.spread or self.compute == "fp32"  # one process never spreads float32
            return {"update": _update(bench, trainer, self, spread=spread)}


@contextmanager
def random_weights_trainer(bench: Bench, config: RunConfig, *, spread: bool = True) -> Iterator[Trainer]:
    """The real trainer of a recipe on a random network, before its first step.

    Args:
        spread: As training does it, in a group of one process, over NCCL on a GPU; False keeps networks whole.
    """
    adapter, settings = random_adapter(config, bench.device, tiny=bench.tiny), role_settings(config)
    group = join(bench.device, timeout_minutes=5.0) if spread else nullcontext(alone(bench.device))
    with group as world:
        mesh = build_mesh(world, alone=settings.spread_alone) if spread else None
        roles = build_roles(adapter, settings, world, mesh)
        prompts = RandomPrompts(adapter, DTYPES[config.precision.compute])
        trainer = Trainer(config, adapter, roles, prompts, world.device, world=world)
        trainer.draw = draw_with_lengths(trainer, bench.lengths)
        bench.free()  # the networks came from one more
        yield trainer


def _update(bench: Bench, trainer: Trainer, case: Training, *, spread: bool) -> Update:
    config, every = trainer.config, trainer.config.student.every

    def update() -> None:
        for _ in range(every):
            trainer.run_step()

    planned = bench.planned(config, trainer.adapter)  # type: ignore[arg-type]
    predicted = predict(config, planned, processes=1, accelerator=bench.on_gpu).peak if spread else None
    update()  # the optimisers make their state, libraries choose their kernels
    roles = trainer.roles
    networks = [role.network for role in (roles.student, roles.teacher, roles.fake_score)]
    meter = PeakMeter(bench.device, resident(networks, trainer.state_dict()))
    first = trainer.step
    with meter if bench.on_gpu else nullcontext():
        seconds = bench.repeated(update, most=3)
    units = statistics.fmean(units_of(trainer, step) for step in range(first, trainer.step, every))
    if not bench.on_gpu:
        with meter:  # counting by hand, twenty times slower
            update()
    work = units * config.batch * planned.flops / 1e12
    teraflops = work / statistics.fmean(seconds)
    reserved, outside = _memory_around(bench)
    return Update(
        model=config.backbone.model,
        height=config.backbone.height,
        width=config.backbone.width,
        trains=case.trains,
        checkpointing=case.checkpointing,
        microbatch=split(config, 1).micro,
        batch=config.batch,
        compute=case.compute,
        compiled=case.compiled,
        spread=spread,
        seconds=tuple(seconds),
        units=units,
        teraflop_per_forward=planned.flops / 1e12,
        teraflops=teraflops,
        utilisation=bench.utilisation(teraflops, case.compute),
        predicted_bytes=None if predicted is None else round(predicted),
        peak_bytes=meter.peak,
        reserved_bytes=reserved,
        outside_bytes=outside,
    )


def units_of(trainer: Trainer, first_step: int) -> float:
    """Forwards per sample of the student update that begins at a step, for the anchors that are drawn there."""
    config = trainer.config
    drawn = sum(1 + statistics.fmean(draws.anchor) for draws in draws_of(trainer, first_step))
    expected = config.student.every * (config.schedule.mean_length + 1) / 2
    return forward_units(config, rounds=split(config, 1).rounds) + drawn - expected


def draws_of(trainer: Trainer, first_step: int) -> list[Draws]:
    rows = range(trainer.config.batch)
    steps = range(first_step, first_step + trainer.config.student.every)
    return [trainer.draw(step, Round(rows, rows, 1.0), False) for step in steps]


def _memory_around(bench: Bench) -> tuple[int | None, int | None]:
    """The most that the allocator held, and what is in use on the card beside it."""
    if not bench.on_gpu:
        return None, None
    free, total = torch.cuda.mem_get_info(bench.device)
    now = torch.cuda.memory_reserved(bench.device)
    return int(torch.cuda.max_memory_reserved(bench.device)), max(0, total - free - now)
