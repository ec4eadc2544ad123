"""The commands. Each one imports what it runs when it is called, so that ``fewstep --version`` loads no torch."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import fewstep
from fewstep.bounds import Seed, Threads, most
from fewstep.cli.backbones import backbones, check
from fewstep.cli.doctor import doctor
from fewstep.cli.embed import embed
from fewstep.cli.evaluate import evaluate_app
from fewstep.cli.export import export
from fewstep.cli.options import Commands
from fewstep.cli.plan import plan
from fewstep.cli.runs import compare, runs, show
from fewstep.cli.sample import sample
from fewstep.cli.told import told_once_a_machine
from fewstep.cli.ui import ui
from fewstep.errors import ConfigError

app = typer.Typer(
    name="fewstep",
    cls=Commands,
    help="Distil flow-matching text-to-image models into students of four steps.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
_recipe_app = typer.Typer(help="Look at one recipe.")
app.add_typer(_recipe_app, name="recipe")
app.add_typer(evaluate_app, name="evaluate")
app.command()(backbones)
app.command()(check)
app.command()(doctor)
app.command()(compare)
app.command()(embed)
app.command()(export)
app.command()(plan)
app.command()(runs)
app.command()(sample)
app.command()(ui)
app.command()(show)

_RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a YAML file of your own.")]
_Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDES", help="Settings, such as student.lr=1e-4 terms.cdm=null."),
]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fewstep {fewstep.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Distil flow-matching text-to-image models into students of four steps."""


@app.command()
def train(
    recipe: _RecipeName,
    overrides: _Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run stopped; start if there is none.")
    ] = False,
    root: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    output: Annotated[Path | None, typer.Option(help="The run's folder, instead of ROOT/RECIPE-HASH.")] = None,
) -> None:
    """Distil a teacher as a recipe says."""
    from fewstep.config.recipe import load_recipe
    from fewstep.distributed.world import is_main_process
    from fewstep.training.run import steps_left
    from fewstep.training.run import train as run_training

    with told_once_a_machine():
        loaded = load_recipe(recipe, overrides or ())
    folder = run_training(loaded, root=root, resume=resume, output=output)
    if not is_main_process():
        return
    if steps_left(folder):
        again = _train_command(recipe, overrides or [], root=root, output=output)
        print(f"The run in {folder.path} was asked to stop before its end. Go on with it: {again}")
    else:
        print(f"The run is in {folder.path}. Next: fewstep export {folder.path} --output out/student")


def _train_command(recipe: str, overrides: list[str], *, root: Path, output: Path | None) -> str:
    """The command that goes on with a run, ready to be pasted into a shell."""
    place = ["--root", str(root)] if root != Path("runs") else []
    if output is not None:
        place = ["--output", str(output)]
    return shlex.join(["fewstep", "train", recipe, *overrides, *place, "--resume"])


@app.command()
def demo(
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=most(Seed), help="Of the training; may be repeated.", show_default="0"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    threads: Annotated[
        int | None, typer.Option(min=1, max=most(Threads), help="Of the arithmetic.", show_default="1")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON on the last line.")] = False,
) -> None:
    """Distil the embedded teacher to four steps and compare the student with it."""
    from fewstep.demo.run import run_demo

    run_demo(output=output, seeds=seed or (0,), threads=threads, as_json=as_json)


@app.command()
def recipes() -> None:
    """List the recipes that have a name: fewstep's own, and those of installed packages."""
    from fewstep.config.recipe_files import package_recipes, recipe_names, recipe_summary

    table = Table.grid(padding=(0, 2))
    for name in recipe_names():
        try:
            said = recipe_summary(name)
        except ConfigError as error:  # of one package; the others are listed
            said = str(error)
        table.add_row(Text(name, style="bold"), Text(said))
    Console().print(table, highlight=False)
    for problem in package_recipes()[1]:
        print(problem, file=sys.stderr)


@app.command()
def prompts() -> None:
    """List the prompt sets of the hub that a student may be trained on."""
    from fewstep.prompts.training_sets import TRAINING_SETS

    table = Table.grid(padding=(0, 2))
    for name, found in TRAINING_SETS.items():
        table.add_row(
            Text(name, style="bold"), f"{found.count} prompts, {found.licence}, {found.megabytes} MB: {found.what}"
        )
    Console().print(table, highlight=False)
    print("Train on 200,000 of one: fewstep train RECIPE 'prompts={kind: set, name: NAME, limit: 200000, seed: 0}'")


@_recipe_app.command("show")
def _show_recipe(
    name: _RecipeName,
    overrides: _Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every setting, with bases and defaults.")] = False,
) -> None:
    """Print a recipe, as it is written or with everything it stands on."""
    from fewstep.config.layers import recipe_text

    if resolved or overrides:
        print(_resolved(name, overrides or []), end="")
    else:
        print(recipe_text(name), end="")


def _resolved(name: str, overrides: list[str]) -> str:
    import yaml

    from fewstep.config.recipe import load_recipe

    settings: dict[str, Any] = load_recipe(name, overrides).config.model_dump(mode="json")
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
