"""``fewstep ui``: a local page to draw in and to follow runs."""

import sys
from typing import Annotated

import typer

from fewstep.bounds import DtypeName


def ui(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|MODEL]...",
            help="Folders of runs, folders that hold runs, and models as fewstep sample takes them.",
            show_default="fewstep:digits",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 7860,
    device: Annotated[str, typer.Option(help="Of torch, as cuda; auto is the fastest one.")] = "auto",
    dtype: Annotated[DtypeName | None, typer.Option(help="Of network and text encoders.", show_default="fp32")] = None,
) -> None:
    """Open a local page: draw with teacher and students side by side, follow runs. Ctrl-C ends it."""
    from fewstep.ui.server import address, listen, require_gradio, serve

    require_gradio()
    with listen(host, port) as place:
        from fewstep.ui.offers import named_by

        named = named_by(places or (), device=device, dtype=dtype)
        for note in named.notes:
            print(note, file=sys.stderr)
        print(f"The page is at {address(place)} (Ctrl-C ends it).", flush=True)
        serve(named, place)
