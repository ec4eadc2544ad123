"""The commands about backbones: what can be a teacher, and what one checkpoint is."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewstep.backbones.protocol import ModelAdapter

LEVELS = (1.0, 0.75, 0.5, 0.25)


def backbones(
    as_json: Annotated[bool, typer.Option("--json", help="Print every target as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/backbones.")] = False,
) -> None:
    """List what can be a teacher, in the recommended order of ports, and what is refused."""
    from fewstep.planning import ports

    if as_json:
        print(ports.as_json())
    elif as_markdown:
        print(ports.as_markdown(), end="")
    else:
        _print_tables()


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A diffusers folder or a repository id.")],
) -> None:
    """Say which adapter serves a model, what the schedule becomes, and whether it is already distilled."""
    from fewstep.backbones.refused import recognise
    from fewstep.backbones.registry import create_model_adapter
    from fewstep.backbones.source import open_checkpoint
    from fewstep.errors import ConfigError

    checkpoint = open_checkpoint(model)
    found = recognise(checkpoint)
    print(f"pipeline   {checkpoint.pipeline_class}")
    try:
        adapter = create_model_adapter(model, as_teacher=False)
    except ConfigError:
        if found is None:
            raise
        print("adapter    none")
    else:
        _print_adapter(adapter)
    if found is None:
        print("distilled  not that its name or its configuration tells (a renamed copy cannot be told)")
    else:
        print(f"distilled  yes: {found.what}; it cannot be a teacher. Use {found.instead} instead.")


def _print_adapter(adapter: "ModelAdapter") -> None:
    import torch

    config = adapter.config
    sigmas = adapter.to_sigma(torch.tensor(LEVELS)).tolist()
    print(f"adapter    {adapter.kind} ({type(adapter).__module__}.{type(adapter).__qualname__})")
    latent = adapter.latent_shape(config.height, config.width)
    print(f"size       {config.height} x {config.width} pixels, latents {latent}")
    print(f"schedule   {_numbers(LEVELS)} becomes sigma {_numbers(sigmas)}")
    recipes = _recipes_of(adapter.kind)
    print(f"recipes    {', '.join(recipes) or 'none of this kind; docs/adding-a-backbone.md shows one'}")


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"


def _recipes_of(kind: str) -> list[str]:
    from fewstep.config.recipe import load_recipe
    from fewstep.config.recipe_files import recipe_names

    return [name for name in recipe_names() if load_recipe(name).config.backbone.kind == kind]


def _print_tables() -> None:
    from rich.console import Console
    from rich.table import Table

    from fewstep.planning import ports

    console = Console(highlight=False)
    matrix = Table(*ports.HEADINGS, title="Teachers, in the recommended order of ports", title_justify="left")
    for port in ports.ports():
        matrix.add_row(*port.cells)
    console.print(matrix)
    console.print(ports.COST_NOTE)
    refused = Table("refused", "model", "pipeline", "why", title="No teachers", title_justify="left")
    for row in ports.refusals():
        refused.add_row(*row)
    console.print(refused)
