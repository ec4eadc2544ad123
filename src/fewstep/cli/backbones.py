"""The commands about backbones: what can be a teacher, and what one checkpoint is."""

import shutil
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewstep.backbones.protocol import ModelAdapter


def backbones(
    what: Annotated[
        str | None, typer.Argument(metavar="KIND", help="Everything about one kind or one model.", show_default="all")
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Everything about all of them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every target as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/backbones.")] = False,
) -> None:
    """List what can be a teacher, in the recommended order of ports, and what is refused."""
    from fewstep.planning import porting_tables

    width = shutil.get_terminal_size().columns
    if as_json:
        print(porting_tables.as_json())
    elif as_markdown:
        print(porting_tables.as_markdown(), end="")
    elif what is not None or details:
        print("\n".join(porting_tables.details(width, what)))
    else:
        print("\n".join(porting_tables.overview(width)))


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A diffusers folder or a repository id.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Build the network without weights and look for all that its adapter names.")
    ] = False,
) -> None:
    """Say which adapter serves a model, what the schedule becomes, and whether it is already distilled.

    Exit code 0 says that the question is answered, also when the answer is that the model is already distilled; 2 says
    that the model cannot be read or that nothing serves it.
    """
    from fewstep.backbones.component_files import attached_loras, missing_parts
    from fewstep.backbones.refused import recognise, recognise_name
    from fewstep.backbones.source import open_checkpoint
    from fewstep.errors import CheckpointError, ConfigError

    found = recognise_name(model)
    try:
        checkpoint = open_checkpoint(model)
    except ConfigError as error:
        if found is None:
            raise
        print(f"files      not read: {error}")
    else:
        found = recognise(checkpoint)
        print(f"pipeline   {checkpoint.pipeline_class}")
        adapter = _print_adapter_of(model, may_have_none=found is not None)
        if deep and adapter is not None:
            _print_anatomy(adapter)
        wrong = (missing_parts(checkpoint) or attached_loras(checkpoint)) if found is None else []
        if wrong:
            raise CheckpointError("\n".join(wrong))
    if found is None:
        print("distilled  not that its name or its configuration tells (a renamed copy cannot be told)")
    else:
        print(
            f"distilled  yes: {found.what}; it cannot be a teacher. Use {found.instead} instead; "
            "if it only looks like one, set backbone.allow_distilled=true."
        )


def _print_adapter_of(model: str, *, may_have_none: bool) -> "ModelAdapter | None":
    from fewstep.backbones.registry import create_model_adapter
    from fewstep.errors import ConfigError

    try:
        adapter = create_model_adapter(model, as_teacher=False)
    except ConfigError:
        if not may_have_none:
            raise
        print("adapter    none")
        return None
    _print_adapter(adapter)
    return adapter


def _print_adapter(adapter: "ModelAdapter") -> None:
    from fewstep.backbones.describe import guidance, lora_targets, schedule
    from fewstep.core.schedules import FOUR_STEPS

    config = adapter.config
    print(f"adapter    {adapter.kind} ({type(adapter).__module__}.{type(adapter).__qualname__})")
    latent = adapter.latent_shape(config.height, config.width)
    print(f"size       {config.height} x {config.width} pixels, latents {latent}")
    print(f"schedule   {schedule(adapter, FOUR_STEPS)}")
    print(f"guidance   {guidance(config)}")
    print(f"blocks     {', '.join(adapter.block_classes)}")
    print(f"lora       {', '.join(lora_targets(adapter))}")
    recipes = _recipes_of(adapter.kind)
    print(f"recipes    {', '.join(recipes) or 'none of this kind; docs/adding-a-backbone.md shows one'}")


def _print_anatomy(adapter: "ModelAdapter") -> None:
    """What ``--deep`` finds; ConfigError when the adapter names what its network does not have."""
    from fewstep.backbones.anatomy import anatomy
    from fewstep.backbones.diffusers_adapter import DiffusersAdapter
    from fewstep.errors import ConfigError

    if not isinstance(adapter, DiffusersAdapter):
        raise ConfigError(
            f"--deep builds networks of a DiffusersAdapter, and {type(adapter).__name__}, which serves "
            f"{adapter.config.model}, is none; leave --deep out."
        )
    found = anatomy(adapter, adapter.network_without_weights())
    print(f"network    {found.network}, {found.parameters:,} parameters")
    print(
        f"found      {', '.join(f'{count} x {name}' for name, count in found.blocks.items())}; "
        f"{found.factor_layers} layers that take factors; {found.never_trained:,} parameters never trained"
    )
    if found.problems:
        raise ConfigError("\n".join(found.problems))


def _recipes_of(kind: str) -> list[str]:
    """Recipes of a kind, those of packages included; one that cannot be read says so and is no reason to stop."""
    from fewstep.config.layers import merge_layers, recipe_layers
    from fewstep.config.recipe_files import recipe_names
    from fewstep.errors import ConfigError

    found = []
    for name in recipe_names():
        try:
            backbone = merge_layers(recipe_layers(name)).get("backbone")
        except ConfigError as error:
            print(f"not read   {error}")
        else:
            found += [name] if isinstance(backbone, dict) and backbone.get("kind") == kind else []
    return found
