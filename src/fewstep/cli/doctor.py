"""The command that looks at the machine."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from fewstep.errors import Exit

if TYPE_CHECKING:
    from fewstep.doctor.line import Line

_STYLES = {"fine": "green", "note": "yellow", "broken": "red"}


def doctor(
    root: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the self-test, which trains and draws.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Look at packages, devices, disks and the hub, try them out, and say what to do where something is not fine.

    Exit code 0 says that nothing is broken, 2 that something has to be done first.
    """
    lines = []
    console = Console(highlight=False, soft_wrap=True)
    for line in _lines(root, quick=quick):
        lines.append(line)
        if not as_json:
            _show(console, line)
    broken = [line for line in lines if line.broken]
    if as_json:
        print(json.dumps([{"state": line.state, **asdict(line)} for line in lines], indent=2))
    else:
        _sum_up(console, lines)
    if broken:
        raise typer.Exit(Exit.USER)


def _lines(root: Path, *, quick: bool) -> Iterator["Line"]:
    """Each when it is known: the last ones take seconds."""
    from fewstep.doctor.packages import packages

    whole = True
    for line in packages():
        whole = whole and not line.broken
        yield line
    if not whole:
        return  # the rest needs them
    from huggingface_hub import constants

    from fewstep.doctor.hub import hub
    from fewstep.doctor.machine import attention, devices, folder
    from fewstep.doctor.self_test import self_test
    from fewstep.planning.porting_matrix import PORTED

    yield from devices()
    yield attention()
    yield folder("runs", root, elsewhere="name another place: --root, of fewstep train too")
    yield folder("cache", Path(constants.HF_HUB_CACHE), elsewhere="set HF_HOME to another place")
    yield from hub([target.model for target in PORTED])
    if not quick:
        yield self_test()


def _show(console: Console, line: "Line") -> None:
    console.print(Text.assemble((f"{line.state:<6}", _STYLES[line.state]), f"  {line.about}: {line.found}"))
    if line.fix is not None:
        console.print(Text(f"        {line.fix}"))


def _sum_up(console: Console, lines: list["Line"]) -> None:
    counted = {state: sum(line.state == state for line in lines) for state in _STYLES}
    console.print(", ".join(f"{count} {state}" for state, count in counted.items()))
