"""``fewstep plan``: what a recipe needs on a machine, before it is paid for."""

import json
import re
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from fewstep.bounds import Processes, most
from fewstep.cli.options import finite
from fewstep.errors import ConfigError, shown

_UNITS = {"gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6, "": 2**30}
_MAX_BYTES = 2**50


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a YAML file of your own.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="OVERRIDES", help="Settings; those about memory are kept instead of chosen."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=most(Processes), help="Devices, one process each.")] = 1,
    memory: Annotated[str, typer.Option(help="Of one device, such as 80GiB.")] = "80GiB",
    mode: Annotated[
        Literal["full", "lora"] | None,
        typer.Option(help="Train all weights or low-rank factors.", show_default="recipe's"),
    ] = None,
    teraflops: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1e6, callback=finite, help="Peak of one device, TFLOP/s.", show_default="an H100's"
        ),
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1.0, callback=finite, help="Share of that peak that is reached.")
    ] = 0.35,
    price: Annotated[
        float, typer.Option(min=0.0, max=1e9, callback=finite, help="US dollars for one device and hour.")
    ] = 2.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Predict memory, time and cost of a run, and choose settings that fit; nothing is downloaded or computed."""
    from fewstep.planning.plan import Planner, Rates

    size = bytes_of(memory)
    rates = Rates(teraflops=teraflops, utilisation=utilisation, price=price)
    made = Planner(recipe, overrides or (), mode=mode).plan(gpus=gpus, memory=size, rates=rates).as_dict()
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        _show(made, price)


def bytes_of(text: str) -> float:
    """A size such as ``80GiB``, ``80 GB`` or ``24`` (GiB) in bytes.

    Raises:
        ConfigError: It is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    size = float(match[1]) * _UNITS.get(match[2].lower(), 0) if match else 0.0
    if not 0 < size <= _MAX_BYTES:
        raise ConfigError(f"--memory is {shown(text)}, which is no size; write it as 80GiB, 80GB or 24576MiB.")
    return size


def _show(made: dict[str, Any], price: float) -> None:
    console = Console(highlight=False, soft_wrap=True)
    verdict = "fits" if made["fits"] else "does not fit"
    console.print(
        f"{made['recipe']} ({made['mode']}) on {made['gpus']} x {made['memory_gib']:.0f} GiB {verdict}: "
        f"{made['peak_gib']:.1f} GiB of tensors in the {made['phase']}, {made['needed_gib']:.1f} GiB with a reserve."
    )
    parts = Table.grid(padding=(0, 2))
    for name, size in made["breakdown"].items():
        parts.add_row(f"  {name}", f"{size:.2f} GiB")
    console.print(parts)
    console.print(
        f"{made['units_per_update']:g} forwards per sample and student update, {made['flops_per_step'] / 1e15:.3g} "
        f"PFLOP per step; the budget takes {made['hours']:.1f} h and costs {_dollars(made['cost'])} "
        f"at {_dollars(price)} for a device and hour (--price)."
    )
    if made["fits"]:
        console.print(f"Settings: {' '.join(_override(name, value) for name, value in made['settings'].items())}")
    else:
        console.print("The smallest settings need " + made["changes"][0] + ". What would fit:")
        for change in made["changes"][1:]:
            console.print(f"  {change}")
    console.print("A prediction: calibrated on CPUs, never on a GPU; the reserve is 15 % and 2 GiB.", style="dim")


def _override(name: str, value: Any) -> str:
    return f"{name}={json.dumps(value)}"


def _dollars(amount: float) -> str:
    return f"{amount:.2f} US dollars" if amount < 100 else f"{amount:.0f} US dollars"
