"""What ``benchmarks.gpu`` measures, in the order of use: each case builds what it needs and returns figures."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.gpu_updates import Bench, Training, draws_of, random_weights_trainer
from benchmarks.on_device import ENCODERS, RandomPrompts, random_adapter, random_encoder
from benchmarks.plain import PlainTrainer, require_plain
from benchmarks.training import expected_units
from fewstep.config.recipe import load_recipe
from fewstep.core.conditioning import Conditioning
from fewstep.data.prompts import prompt_index
from fewstep.devices import DTYPES
from fewstep.distributed.world import join
from fewstep.roles.compilation import Compilation
from fewstep.sampling.sampler import sample_latents, teacher_sigmas, velocity_field

MODES: tuple[Compilation, ...] = (True, "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
"""Of compilation, the quickest to compile first; two of them record CUDA graphs, for networks that are not spread."""


class _PlainWithEmbeddings(PlainTrainer):
    """The plain formulation on a random network, which has no text encoders: neither side asks any."""

    def _prepare_prompts(self) -> None:
        self.embeddings = RandomPrompts(self.adapter, self.compute)  # type: ignore[arg-type]
        self.null_cond = self.embeddings.null.to(self.device)

    def _encoders(self) -> list[nn.Module]:
        return []

    def _encode(self, rows: range) -> Conditioning:
        start = self.step * self.config.batch
        indices = [prompt_index(self.config.seed, start + row, len(self.embeddings)) for row in rows]
        return self.embeddings.batch(indices).to(self.device)


def plain_beside_ours(bench: Bench, *, recipe: str, microbatch: int) -> dict[str, Any]:
    """Student updates of both in turn, all weights trained, the batch unsplit."""
    config = Training(recipe, "full", microbatch=microbatch).config(bench, rounds=1)
    require_plain(config)
    every = config.student.every
    with random_weights_trainer(bench, config) as ours:
        plain = _PlainWithEmbeddings(config, ours.adapter, ("",), ours.draw, device=bench.device)
        sides: Mapping[str, Callable[[], object]] = {"plain": plain.run_step, "ours": ours.run_step}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        working: dict[str, int | None] = {}

        def update(step: Callable[[], object]) -> None:
            for _ in range(every):
                step()

        for number in range(2 if bench.tiny else 4):
            if number > 1 and 1.5 * sum(took[-1] for took in seconds.values()) > bench.left():
                break
            for name, step in sides.items():
                before = _allocated(bench)
                seconds[name].append(bench.seconds(lambda step=step: update(step)))
                working[name] = None if before is None else int(torch.cuda.max_memory_allocated(bench.device)) - before
        timed = {name: took[1:] for name, took in seconds.items()}  # the first is for warmth
        updates = len(timed["ours"])
        drawn = [expected_units(config, draws_of(ours, every * (1 + update))) for update in range(updates)]
    units = {name: statistics.fmean(one[name] for one in drawn) for name in sides}
    figures: dict[str, Any] = {"recipe": recipe, "batch": config.batch, "compute": config.precision.compute}
    for name in sides:
        told = working[name]
        figures[name] = {
            "seconds": timed[name],
            "units": units[name],
            "working_bytes": "not measured" if told is None else told,
        }
    figures |= {"checkpointing": config.memory.gradient_checkpointing, "text encoders": "asked by neither side"}
    return {"figures": figures, "ratios": {"plain_to_ours": sum(timed["plain"]) / sum(timed["ours"])}}


def _allocated(bench: Bench) -> int | None:
    """Bytes of tensors now, from which a new peak begins."""
    if not bench.on_gpu:
        return None
    torch.cuda.reset_peak_memory_stats(bench.device)
    return int(torch.cuda.memory_allocated(bench.device))


@torch.no_grad()
def teacher_beside_student(bench: Bench, *, recipe: str, batch: int) -> dict[str, Any]:
    """The network calls of a picture: the teacher's steps with guidance, the student's without; nothing is decoded."""
    config = load_recipe(recipe, bench.settings(f"sampling.teacher_steps={3 if bench.tiny else 50}")).config
    sampling, dtype = config.sampling, DTYPES[config.precision.compute]
    adapter = random_adapter(config, bench.device, tiny=bench.tiny)
    adapter.compute_dtype = dtype
    network = adapter.load_network(dtype=dtype)
    bench.free()
    prompts = RandomPrompts(adapter, dtype)
    cond, null = prompts.batch([n % len(prompts) for n in range(batch)]).to(bench.device), prompts.null.to(bench.device)
    noise = torch.randn(
        batch, *adapter.latent_shape(config.backbone.height, config.backbone.width), device=bench.device
    )

    def draw(sigmas: Tensor, guidance_scale: float | None) -> None:
        field = velocity_field(adapter, network, cond, null, guidance_scale=guidance_scale)
        sample_latents(field, noise, sigmas, initial_scale=adapter.initial_scale)

    student = partial(draw, adapter.sigmas(torch.tensor(sampling.levels)), None)
    teacher = partial(draw, teacher_sigmas(adapter, sampling.teacher_steps), sampling.teacher_guidance_scale)
    draw(teacher_sigmas(adapter, 1), sampling.teacher_guidance_scale)
    student()
    _allocated(bench)
    seconds = {"student": bench.repeated(student, most=5), "teacher": bench.repeated(teacher, most=2)}
    each = {name: min(took) / batch for name, took in seconds.items()}
    figures = {
        "recipe": recipe,
        "batch": batch,
        "compute": config.precision.compute,
        "teacher_steps": sampling.teacher_steps,
        "teacher_guidance_scale": sampling.teacher_guidance_scale,
        "student_steps": len(sampling.levels),
        **{f"{name}_seconds_per_picture": value for name, value in each.items()},
        "peak_bytes": int(torch.cuda.max_memory_allocated(bench.device)) if bench.on_gpu else "not measured",
        "decoding": "not measured",
    }
    return {"figures": figures, "ratios": {f"teacher_to_student_{recipe}": each["teacher"] / each["student"]}}


def products(bench: Bench) -> dict[str, Any]:
    """Square matrix products: what of the stated peak any network could reach."""
    size = 128 if bench.tiny else 8192
    figures: dict[str, Any] = {"size": size}
    for compute, dtype in DTYPES.items():
        a, b = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        torch.mm(a, b)
        took = bench.seconds(lambda a=a, b=b: [torch.mm(a, b) for _ in range(20)]) / 20
        teraflops = 2 * size**3 / took / 1e12
        figures[compute] = {"teraflops": teraflops, "utilisation": bench.utilisation(teraflops, compute)}
    return {"figures": figures}


def one_process_group(bench: Bench) -> dict[str, Any]:
    """The group of one process in which training runs, and a sum over it; spread updates run in such a group too."""
    with join(bench.device, timeout_minutes=1.0) as world:
        size = 2**16 if bench.tiny else 2**28
        values = torch.ones(size // 4, device=world.device)
        dist.all_reduce(values)
        took = bench.seconds(lambda: dist.all_reduce(values))
        right = bool((values == 1).all())
        backend = dist.get_backend_config(dist.group.WORLD)
    version = ".".join(map(str, torch.cuda.nccl.version())) if bench.on_gpu else "not measured"
    return {"figures": {"backend": backend, "nccl": version, "bytes": size, "all_reduce_seconds": took, "right": right}}


@torch.no_grad()
def embedding(bench: Bench, *, recipe: str, prompts: int = 1000) -> dict[str, Any]:
    """Random tokens through random encoders of the checkpoint's sizes, one encoder in memory after the other."""
    config = load_recipe(recipe, bench.settings()).config
    dtype = DTYPES[config.precision.compute]
    batch, asked = (2, 4) if bench.tiny else (32, prompts)
    figures: dict[str, Any] = {
        "recipe": recipe,
        "embedded": "random tokens of full length; tokenizers and writing to the disk are left out",
        "batch": batch,
        "compute": config.precision.compute,
    }
    for label, (class_name, config_name, settings, tokens) in ENCODERS[config.backbone.kind].items():
        encoder = random_encoder(class_name, config_name, settings, bench.device, dtype, tiny=bench.tiny)
        ids = torch.randint(3, 500, (batch, tokens), device=bench.device)
        encoder(ids)
        seconds = done = 0.0
        while done < asked and (not done or 2 * seconds / done * batch < bench.left()):
            rows = min(batch, asked - int(done))
            seconds += bench.seconds(lambda encoder=encoder, part=ids[:rows]: encoder(part))
            done += rows
        figures[label] = {
            "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
            "tokens": tokens,
            "prompts": int(done),
            "seconds_per_1000_prompts": 1000 * seconds / done,
        }
        del encoder
        bench.free()
    total = sum(one["seconds_per_1000_prompts"] for one in figures.values() if isinstance(one, dict))
    return {"figures": {**figures, "seconds_per_1000_prompts": total}}


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        name: In the file.
        seconds: That it may take at most.
        measure: Returns fields of its row, and ``ratios``.
        only_on_gpu: What it measures has no meaning elsewhere, or takes minutes there.
    """

    name: str
    seconds: float
    measure: Callable[[Bench], dict[str, Any]]
    only_on_gpu: bool = False


def _training(seconds: float, training: Training, **changed: Any) -> Case:
    training = replace(training, **changed)
    return Case(training.name, seconds, training.measure, only_on_gpu=bool(training.compiled))


def cases() -> list[Case]:
    """All of them, the most useful first: any file, however short, has what a plan needs."""
    sd3, sana = Training("sd3-medium"), Training("sana-600m", "full", microbatch=4)
    return [
        Case("matrix products", 20, products),
        _training(60, sd3),
        _training(60, sana),
        _training(60, sd3, trains="full"),
        _training(60, sd3, checkpointing="selective"),
        Case("sd3-medium, teacher beside student", 60, partial(teacher_beside_student, recipe="sd3-medium", batch=1)),
        Case("sana-600m, plain beside ours", 60, partial(plain_beside_ours, recipe="sana-600m", microbatch=4)),
        _training(60, sd3, microbatch=4),
        _training(60, sd3, spread=False),
        Case("a group of one process", 20, one_process_group),
        Case("sd3-medium, embedding", 60, partial(embedding, recipe="sd3-medium")),
        _training(60, sd3, checkpointing=False),
        _training(60, sd3, compute="fp32"),
        _training(60, sd3, trains="full", checkpointing="selective"),
        _training(60, sana, checkpointing="selective"),
        _training(150, sana, compiled=True),
        *(_training(240, sana, microbatch=1, spread=False, compiled=kind) for kind in (False, *MODES)),
        _training(60, sd3, trains="full", checkpointing=False),
        _training(60, sana, checkpointing=False),
        _training(60, sd3, microbatch=2),
        _training(60, sd3, microbatch=8),
        _training(60, sana, microbatch=1),
        _training(60, sana, microbatch=16),
        _training(60, sana, trains="lora"),
        _training(60, sana, trains="lora", checkpointing="selective"),
        _training(60, sana, trains="lora", checkpointing=False),
        Case("sana-600m, teacher beside student", 60, partial(teacher_beside_student, recipe="sana-600m", batch=4)),
        Case("sana-600m, embedding", 60, partial(embedding, recipe="sana-600m")),
        _training(60, sd3, trains="full", microbatch=4),
        _training(150, sd3, trains="full", compiled=True),
    ]
