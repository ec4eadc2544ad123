"""``fewstep embed``: the prompts of a recipe, embedded before a run asks for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewstep.bounds import Count, most
from fewstep.cli.told import told_once_a_machine
from fewstep.errors import ConfigError

if TYPE_CHECKING:
    from fewstep.config.run_config import RunConfig


def embed(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a YAML file of your own.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="OVERRIDES", help="Settings, such as prompts.path=my-prompts.txt.")
    ] = None,
    root: Annotated[
        Path, typer.Option(help="Folder that holds the runs, as for train; with train --output its parent.")
    ] = Path("runs"),
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only compute the size from the shapes; no weight is loaded.")
    ] = False,
    num_prompts: Annotated[
        int | None,
        typer.Option(min=1, max=most(Count), help="With --estimate: so many prompts, instead of the recipe's."),
    ] = None,
) -> None:
    """Embed the prompts of a recipe; start it with torchrun to use several processes. A stopped one goes on."""
    from fewstep.config.recipe import load_recipe

    if num_prompts is not None and not estimate:
        raise ConfigError(f"--num-prompts {num_prompts} is for --estimate; shorten the prompt file instead.")
    with told_once_a_machine():
        config = load_recipe(recipe, overrides or ()).config
    if estimate:
        _estimate(config, root, num_prompts)
    else:
        _embed(config, root)


def _estimate(config: "RunConfig", root: Path, num_prompts: int | None) -> None:
    from fewstep.data.prompts import load_prompts
    from fewstep.data.sizes import estimate_from_shapes
    from fewstep.devices import DTYPES
    from fewstep.planning.meta_networks import described_adapter

    count = len(load_prompts(config.prompts)) if num_prompts is None else num_prompts
    shapes = described_adapter(config.backbone).prompt_shapes()
    found = estimate_from_shapes(shapes, num_prompts=count, embeddings=DTYPES[config.precision.compute])
    print(found.sentence(_place(root)))


def _embed(config: "RunConfig", root: Path) -> None:
    from fewstep.backbones.registry import create_model_adapter
    from fewstep.data.building import EmbeddingStoppedError
    from fewstep.data.embeddings import open_or_build
    from fewstep.data.prompts import load_prompts
    from fewstep.devices import DTYPES, choose_device
    from fewstep.distributed.world import join
    from fewstep.training.signals import stop_on_signals

    notes: list[str] = []
    prompts = load_prompts(config.prompts, tell=notes.append)
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    adapter.require_usable()
    device = choose_device(config.parallel.device)
    with stop_on_signals() as stop, join(device, timeout_minutes=config.parallel.timeout_minutes) as world:
        if world.is_main:
            for note in notes:
                print(note, flush=True)

        def progress(done: int, total: int) -> None:
            if world.is_main:
                print(f"Embedding prompts: {done} of {total}", flush=True)
            if stop:
                raise EmbeddingStoppedError(stop.interrupted)

        try:
            cache = open_or_build(
                _place(root),
                adapter,
                prompts,
                device=world.device,
                dtype=DTYPES[config.precision.compute],
                processes=world,
                on_estimate=lambda estimate: print(estimate.sentence(_place(root)), flush=True),
                on_progress=progress,
            )
        except EmbeddingStoppedError as stopped:
            if world.is_main:
                print("Stopped while prompts were embedded; the same command goes on.", flush=True)
            raise (KeyboardInterrupt if stopped.interrupted else SystemExit(0)) from None
        if world.is_main:
            print(f"The embeddings of {len(cache)} prompts are in {cache.folder} ({cache.num_bytes} bytes).")


def _place(root: Path) -> Path:
    """Where ``fewstep train`` looks for embeddings."""
    return root / ".cache" / "embeddings"
