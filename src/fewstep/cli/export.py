"""``fewstep export``: a run's student as files that other programs draw with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fewstep.bounds import WrittenDtype


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
    factors: Annotated[
        bool, typer.Option("--factors", help="Only the low-rank factors, which diffusers puts on the teacher.")
    ] = False,
) -> None:
    """Write a run's student as a diffusers folder."""
    from fewstep.export.export import export as export_run

    print(export_run(run, output, step=step, weights=weights, dtype=dtype, factors_only=factors))
