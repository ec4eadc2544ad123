"""Measure a model: the engine of ``fewstep evaluate``. So far with the protocol of the embedded demo."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fewstep.bounds import MAX_SCALE, MAX_STEPS, MAX_THREADS, require_between
from fewstep.demo.protocol import METRICS, NOISE_SEEDS, Judge, Row, draw_with
from fewstep.demo.rows import load_judge
from fewstep.embedded.classifier import IMAGE_SIZE
from fewstep.errors import ConfigError
from fewstep.sampling.generate import TextToImage, load_generator


def evaluate(
    model: str | Path,
    *,
    steps: int | None = None,
    guidance_scale: float | None = None,
    threads: int | None = None,
    judge: Judge | None = None,
) -> Row:
    """Measure a model that draws the demo's digits with the demo's protocol.

    Args:
        model: An exported student of the demo, or ``fewstep:digits``, the embedded teacher.
        steps: Steps per picture; None is the model's own.
        guidance_scale: 1 is off; None is the model's own.
        threads: Threads of the arithmetic; None leaves them as they are.
        judge: What it is measured against; the shipped reference with the whole protocol when None.

    Returns:
        The row, the mean over the protocol's noise seeds.

    Raises:
        ConfigError: The model cannot be opened, is a run that was not exported, or does not draw digits.
    """
    if (Path(model) / "run.json").is_file():
        raise ConfigError(
            f"{model} is the folder of a run; export its student first: fewstep export {model} --output out/student"
        )
    if steps is not None:
        require_between(steps, "steps", 1, MAX_STEPS)
    if guidance_scale is not None:
        require_between(guidance_scale, "guidance_scale", 0, MAX_SCALE)
    if threads is not None:
        require_between(threads, "threads", 1, MAX_THREADS)
    generator = load_generator(model, "cpu")
    _require_digits(generator, model)
    guidance = generator.default_guidance_scale() if guidance_scale is None else guidance_scale
    sigmas = generator.sigmas(own_steps(generator) if steps is None else steps)
    judge = judge or load_judge()
    with _threads(threads):
        row, _ = judge.measure_model(draw_with(generator, sigmas=sigmas, guidance_scale=guidance), guidance=guidance)
    return row


def evaluate_command(
    model: str | Path,
    *,
    steps: int | None = None,
    guidance_scale: float | None = None,
    threads: int | None = None,
    as_json: bool = False,
) -> None:
    """Measure a model and print its row; as JSON on the last line of standard output when asked."""
    console = Console(stderr=as_json, highlight=False)
    with console.status(f"Measuring {model} with {len(NOISE_SEEDS)} noise seeds"):
        row = evaluate(model, steps=steps, guidance_scale=guidance_scale, threads=threads)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for figure in METRICS:
        table.add_row(figure, f"{getattr(row, figure):.4f}")
    table.add_row("guidance", f"{row.guidance:g}")
    console.print(table)
    if as_json:
        print(json.dumps(row.to_json()), flush=True)


def own_steps(generator: TextToImage) -> int:
    """The number of steps that a model was made for, or four where it does not say."""
    facts = generator.facts
    if facts is not None and facts.sigmas is not None:
        return len(facts.sigmas)
    return 4 if facts is None or facts.steps is None else facts.steps


def _require_digits(generator: TextToImage, model: str | Path) -> None:
    config = generator.adapter.config
    if (config.height, config.width) != (IMAGE_SIZE, IMAGE_SIZE):
        raise ConfigError(
            f"{model} draws {config.height} x {config.width} pixels; the metrics of this version are those of the "
            f"embedded demo, for its {IMAGE_SIZE} x {IMAGE_SIZE} digits. Give a student of the recipe digits."
        )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
