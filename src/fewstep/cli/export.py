"""``fewstep export``: a run's student as files that other programs draw with."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fewstep.bounds import Rank, WrittenDtype, most
from fewstep.cli.options import finite
from fewstep.errors import ConfigError

FormatName = Literal["pipeline", "lora", "comfyui"]


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of one of its checkpoints.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not hold anything.")],
    step: Annotated[
        str | None, typer.Option(metavar="best|last|N", help="Which checkpoint of the run.", show_default="last")
    ] = None,
    weights: Annotated[
        Literal["ema", "raw"] | None,
        typer.Option(help="The student's average, or its weights themselves.", show_default="ema where one was kept"),
    ] = None,
    dtype: Annotated[WrittenDtype, typer.Option(help="Of the written weights: exact, or half the size.")] = "fp32",
    format: Annotated[
        FormatName,
        typer.Option(help="A whole diffusers folder, or factors for the teacher: for diffusers, or for ComfyUI."),
    ] = "pipeline",
    rank: Annotated[
        int | None, typer.Option(min=1, max=most(Rank), help="Of every layer's factors.", show_default="64")
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, callback=finite, help="Share of a layer's change that may be lost, at most."),
    ] = None,
    size: Annotated[
        float | None, typer.Option(min=0.001, max=1e6, callback=finite, help="MiB of the factors' file, at most.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Folder of an evaluation, whose table the model card shows.")
    ] = None,
    push: Annotated[str | None, typer.Option(metavar="USER/NAME", help="Upload it to this repository.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what --push would upload, and do not.")] = False,
) -> None:
    """Write a run's student, read it again, and compare what both draw.

    Factors of a run that trained all weights are cut from its change by --rank, --error or --size.
    """
    from fewstep.export.export import export as export_run
    from fewstep.export.formats import chosen_format
    from fewstep.export.publish import Upload, require_repository, upload

    if push is not None:
        require_repository(push)
    elif dry_run:
        raise ConfigError("--dry-run prints what --push would upload; give --push USER/NAME too.")
    chosen = chosen_format(format, rank=rank, error=error, size=size)
    done = export_run(run, output, step=step, weights=weights, dtype=dtype, format=chosen, scores=scores)
    if done.extraction is not None:
        Console().print(done.extraction.table())
    print(done)
    if push is not None:
        print(f"Would go to the hub:\n{Upload.of(done.folder, push)}" if dry_run else upload(done.folder, push))
