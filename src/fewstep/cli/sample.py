"""``fewstep sample``: pictures of prompts, from options, a file or a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.bounds import Batch, DtypeName, GuidanceScale, Seed, Steps, most
from fewstep.cli.options import finite
from fewstep.errors import ConfigError, Exit, printable

if TYPE_CHECKING:
    from fewstep.sampling.drawing import Progress

_Model = Annotated[
    str,
    typer.Argument(
        help="An exported student, a diffusers folder, or a repository id; with choices as in fewstep evaluate: "
        "MODEL,steps=4."
    ),
]
_Output = Annotated[Path, typer.Option(help="A PNG file, or of a video a GIF or MP4; several are numbered.")]
_Steps = Annotated[
    int | None, typer.Option(min=1, max=most(Steps), help="Per picture.", show_default="the model's own")
]
_Sigmas = Annotated[
    str | None,
    typer.Option(
        metavar="1.0,0.9,...",
        help="Noise levels as the network sees them, instead of --steps: from at most 1 down, without a final 0.",
    ),
]
_Guidance = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=most(GuidanceScale), callback=finite, help="As its card does.", show_default="the model's own"
    ),
]
_Size = Annotated[
    str | None,
    typer.Option(
        metavar="HEIGHTxWIDTH", help="Pixels, height first: 768x1344 is wide.", show_default="the model's own"
    ),
]
_Lora = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE[:SCALE]", help="Merged into the model, in order; may be repeated. The scale is 1."),
]
_Compare = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL2",
        help="Another model, with its own choices behind it (MODEL2,steps=28): one sheet with both side by side.",
    ),
]


def sample(
    model: _Model,
    output: _Output,
    prompt: Annotated[list[str] | None, typer.Option(help="Text of a picture; may be repeated.")] = None,
    prompts_file: Annotated[Path | None, typer.Option(help="txt, jsonl, json, csv, tsv, parquet or tar.")] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read prompts from standard input; each line is drawn as it comes.")
    ] = False,
    steps: _Steps = None,
    sigmas: _Sigmas = None,
    seed: Annotated[int, typer.Option(min=0, max=most(Seed), help="Names the noise, together with the prompt.")] = 0,
    guidance_scale: _Guidance = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What every picture is guided away from; needs guidance.")
    ] = None,
    size: _Size = None,
    lora: _Lora = None,
    batch: Annotated[
        int, typer.Option(min=1, max=most(Batch), help="Pictures per network call; changes no picture but by rounding.")
    ] = 16,
    dtype: Annotated[DtypeName | None, typer.Option(help="Of network and text encoders.", show_default="fp32")] = None,
    device: Annotated[str, typer.Option(help="Of torch, as cuda; auto is the fastest one.")] = "auto",
    offload: Annotated[
        bool, typer.Option("--offload", help="Load text encoders, network and VAE in turn: less memory, more time.")
    ] = False,
    grid: Annotated[bool, typer.Option("--grid", help="Write one sheet of all pictures.")] = False,
    compare: _Compare = None,
) -> None:
    """Draw pictures."""
    said: dict[str, Any] = {
        "steps": steps,
        "sigmas": sigmas,
        "seed": seed,
        "guidance_scale": guidance_scale,
        "negative_prompt": negative_prompt,
        "size": size,
        "lora": lora or None,
        "batch": batch,
        "dtype": dtype,
        "device": device,
        "offload": offload,
    }
    if stdin:
        alone = {"--prompt": prompt, "--prompts-file": prompts_file, "--grid": grid, "--compare": compare}
        for option in (name for name, value in alone.items() if value):
            raise ConfigError(f"--stdin draws each line as it comes, so {option} has no place here; leave it out.")
        _draw_lines(model, {name: value for name, value in said.items() if value is not None}, output)
        return
    from fewstep.sampling.drawing import sample as draw
    from fewstep.sampling.pictures import picture_paths

    prompts = _prompts(prompt, prompts_file)
    with _bar() as progress:
        draw(model, prompts, **said, output=output, grid=grid, compare=compare, progress=progress)
    if grid or compare:
        print(f"{output}: {len(prompts)} prompt{'s' * (len(prompts) != 1)}")
        return
    for path, text in zip(picture_paths(output, len(prompts)), prompts, strict=True):
        print(f"{path}: {text}")


def _draw_lines(model: str, said: dict[str, Any], output: Path) -> None:
    """Tells every line that is no prompt, draws the others, and ends as a user's error when there was one."""
    from fewstep.sampling.drawing import sample_lines
    from fewstep.sampling.request import drawing_of

    refusals = 0

    def refused(error: ConfigError) -> None:
        nonlocal refusals
        refusals += 1
        print(f"fewstep: {printable(str(error))}", file=sys.stderr)

    lines = iter(sys.stdin.buffer.readline, b"")
    told = partial(print, sep=": ", flush=True)  # whoever reads a pipe gets each name when its file is whole
    sample_lines(drawing_of(model, said), lines, output, drawn=told, refused=refused)
    if refusals:
        raise typer.Exit(Exit.USER)


@contextmanager
def _bar() -> "Iterator[Progress | None]":
    """A bar on a terminal; into a pipe or a file nothing is written."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {}

        def told(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"Steps of {name}", total=total)
            bar.update(tasks[name], completed=done)

        yield told


def _prompts(prompts: list[str] | None, file: Path | None) -> list[str]:
    if file is None:
        if not prompts:
            raise ConfigError("There is nothing to draw: give --prompt 'a text', or --prompts-file FILE.")
        return prompts
    from fewstep.config.prompt_sources import PromptFile
    from fewstep.data.prompts import load_prompts

    return [*(prompts or []), *load_prompts(PromptFile(path=str(file)), tell=partial(print, file=sys.stderr))]
