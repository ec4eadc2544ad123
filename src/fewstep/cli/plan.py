"""``fewstep plan``: what a recipe needs on a machine, before it is paid for."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from fewstep.bounds import Processes, most
from fewstep.cli.options import finite
from fewstep.errors import ConfigError, shown

if TYPE_CHECKING:
    from fewstep.planning.measurements import Measurements

_UNITS = {"gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6, "": 2**30}
_MAX_BYTES = 2**50
_MEMORY = "80GiB"
# what makers print on a card is a little more than what CUDA finds
_MORE_THAN_FOUND = 1.05


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a YAML file of your own.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="OVERRIDES", help="Settings; those about memory are kept instead of chosen."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=most(Processes), help="Devices, one process each.")] = 1,
    memory: Annotated[
        str | None,
        typer.Option(help="Of one device, such as 80GiB.", show_default=f"{_MEMORY}, or the measured card's"),
    ] = None,
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
        float | None,
        typer.Option(
            min=0.001, max=1.0, callback=finite, help="Share of that peak that is reached.", show_default="0.35"
        ),
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What python -m benchmarks.gpu wrote, or a card that was measured for this package: its speed and "
            "its reserve instead of assumed ones.",
        ),
    ] = None,
    network: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1e6,
            callback=finite,
            metavar="GBPS",
            help="Gbit/s that a machine of eight devices sends to others: counts what devices exchange and wait for, "
            "and chooses parallel.shard and parallel.replicate.",
            show_default="nothing is waited for",
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where fewstep embed put the prompts: counts the longest one's text, where training leaves "
            "padding out.",
            show_default="all tokens of a padded prompt",
        ),
    ] = None,
    price: Annotated[
        float, typer.Option(min=0.0, max=1e9, callback=finite, help="US dollars for one device and hour.")
    ] = 2.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Predict memory, time and cost of a run, and choose settings that fit; nothing is downloaded or computed."""
    from fewstep.planning.counts import counts_folder
    from fewstep.planning.exchange import Links
    from fewstep.planning.measurements import load_measurements
    from fewstep.planning.plan import Planner, Rates

    found = None if measured is None else load_measurements(measured)
    if found is not None and not (teraflops is None and utilisation is None):
        raise ConfigError("--measured tells how fast the card is; leave out --teraflops and --utilisation.")
    size = _memory(memory, found)
    given = {"teraflops": teraflops, "utilisation": utilisation, "price": price}
    rates = Rates(**{name: value for name, value in given.items() if value is not None})
    planner = Planner(recipe, overrides or (), mode=mode, measured=found, keep=counts_folder(), embeddings=embeddings)
    links = None if network is None else Links(between=network * 1e9 / 8)
    made = planner.plan(gpus=gpus, memory=size, rates=rates, links=links).as_dict()
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        _show(made, price, embeddings)


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


def _memory(asked: str | None, measured: "Measurements | None") -> float:
    """Of one device: as asked, else the measured card's, which it must not exceed."""
    card = None if measured is None else measured.card
    if card is None or card.memory_bytes is None:
        return bytes_of(asked or _MEMORY)
    size = float(card.memory_bytes) if asked is None else bytes_of(asked)
    if size > _MORE_THAN_FOUND * card.memory_bytes:
        raise ConfigError(
            f"--memory is {shown(asked, quoted=False)}, but --measured tells of another card: {card.name} has "
            f"{card.memory_bytes / 2**30:.1f} GiB; leave out --memory, or give measurements of the card you mean."
        )
    return size


def _show(made: dict[str, Any], price: float, embeddings: Path | None) -> None:
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
    if made["text_tokens"] is not None:
        console.print(_text(made["text_tokens"], embeddings))
    if made["timing"] is not None:
        console.print(_timed(made["timing"]))
    if made["fits"]:
        console.print(f"Settings: {' '.join(_override(name, value) for name, value in made['settings'].items())}")
    else:
        console.print("The smallest settings need " + made["changes"][0] + ". What would fit:")
        for change in made["changes"][1:]:
            console.print(f"  {change}")
    console.print(_source(made), style="dim")


def _text(tokens: int, embeddings: Path | None) -> str:
    """Whose text is counted."""
    if embeddings is None:
        return (
            f"All {tokens} text tokens of a padded prompt are counted; training leaves out what no prompt of a batch "
            "has, and --embeddings FOLDER counts the longest that fewstep embed found."
        )
    return f"{tokens} text tokens are counted: those of the longest prompt in {embeddings}, rounded up as in training."


def _timed(timing: dict[str, Any]) -> str:
    """How long a student update takes, and what of it is exchange."""
    more = "more" if timing["exchange"] > timing["compute"] else "less"
    return (
        f"A student update takes {timing['seconds']:.3g} s: {timing['compute']:.3g} s of networks at the process that "
        f"the others wait for, {timing['exchange']:.3g} s of exchange ({more} than the networks take), of the shorter "
        f"{timing['overlap']:.0%} at the same time; assumed, never measured."
    )


def _source(made: dict[str, Any]) -> str:
    """What the prediction rests on."""
    basis = made["measured"]
    if basis is None:
        return "A prediction: calibrated on CPUs, never on a GPU; the reserve is 15 % and 2 GiB."
    share = "" if basis["utilisation"] is None else f", {basis['utilisation']:.0%} of its peak"
    reserve = basis["reserve"]
    told = "measured too" if basis["reserve_measured"] else "assumed: the file has no memory"
    several = " Between devices nothing was measured." if made["gpus"] > 1 else ""
    return (
        f"Hours from {basis['teraflops']:.3g} TFLOP/s{share}, measured on {basis['card']} ({basis['case']}); the "
        f"reserve is {reserve['factor'] - 1:.0%} and {reserve['constant'] / 2**30:.1f} GiB, {told}.{several}"
    )


def _override(name: str, value: Any) -> str:
    return f"{name}={json.dumps(value)}"


def _dollars(amount: float) -> str:
    return f"{amount:.2f} US dollars" if amount < 100 else f"{amount:.0f} US dollars"
