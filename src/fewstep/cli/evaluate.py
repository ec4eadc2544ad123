"""``fewstep evaluate``: measure models, convert a metric's checkpoint, list the metrics, compare evaluations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from fewstep.bounds import Batch, Count, GuidanceScale, Pictures, Seed, Steps, Threads, most
from fewstep.cli.options import finite
from fewstep.errors import ConfigError, shown

_MEASURE = "measure"
_LISTS = ("--metrics", "--ladder")
"""Options that take every value up to the next option, as in ``--metrics fid ocr``."""


def repeat_options(arguments: Sequence[str], lists: Sequence[str] = _LISTS) -> list[str]:
    """Write ``--metrics a b`` as ``--metrics a --metrics b``, which is how options are repeated."""
    written: list[str] = []
    option: str | None = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in lists else None
            written.append(argument)
        elif option is not None and written[-1] != option:
            written += [option, argument]
        else:
            written.append(argument)
    return written


class _ListCommand(TyperCommand):
    """A command some of whose options take several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat_options(args))


class _MeasureByDefault(TyperGroup):
    """A group that measures when no command of it is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [_MEASURE, *args])


evaluate_app = typer.Typer(
    cls=_MeasureByDefault,
    help="Measure models, or pictures of any tool: draw prompts, score the pictures, write a report.",
    pretty_exceptions_enable=False,
)


_Pictures = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FOLDER[,name=NAME]",
        help="Pictures that another tool drew for --prompts, or a .jsonl file that names them; may be repeated.",
    ),
]
_Teacher = Annotated[str | None, typer.Option(help="As --model.", show_default="the one that the student's files name")]
_Phase = Annotated[
    Literal["generate", "score", "both"], typer.Option(help="Draw, score what is drawn, or one after the other.")
]
_Metrics = Annotated[
    list[str] | None,
    typer.Option(
        help="Names, one or several.", show_default="five preference scores; the embedded ones for the digits"
    ),
]
_MetricSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="METRIC.FIELD=VALUE", help="A metric's setting; repeatable.")
]
_Prompts = Annotated[
    str | None,
    typer.Option(help="A set's name, a file, or NAME=FILE.", show_default="drawbench; the digits for their students"),
]
_Steps = Annotated[
    int | None, typer.Option(min=1, max=most(Steps), help="Of the models.", show_default="each model's own")
]
_Guidance = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=most(GuidanceScale),
        callback=finite,
        help="Of the models; 1 is off.",
        show_default="each model's own",
    ),
]
_Batch = Annotated[
    int | None, typer.Option(min=1, max=most(Batch), help="Pictures per call of a model.", show_default="8; 1 of clips")
]
_Ladder = Annotated[
    list[int] | None, typer.Option(min=0, max=most(Steps), help="Numbers of steps to show in the report; 0 for none.")
]
_AllowDifferent = Annotated[
    bool, typer.Option("--allow-different-protocols", help="Compare what was measured differently; says so.")
]


@evaluate_app.command(
    _MEASURE,
    cls=_ListCommand,
    epilog="Further commands: fewstep evaluate convert | metrics | compare, each with --help.",
)
def measure(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Folders or repository ids, with choices: MODEL,steps=4."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Another MODEL; may be repeated.")] = None,
    pictures: _Pictures = None,
    teacher: _Teacher = None,
    phase: _Phase = "both",
    metrics: _Metrics = None,
    settings: _MetricSettings = None,
    prompts: _Prompts = None,
    num_prompts: Annotated[int | None, typer.Option(min=1, max=most(Count), help="Only the first so many.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=most(Pictures), help="Pictures per prompt: seeds 0, 1, ...")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, max=most(Seed) - most(Pictures), help="Where the seeds begin.")] = 0,
    output: Annotated[Path, typer.Option(help="The evaluation's folder.")] = Path("runs/evaluation"),
    steps: _Steps = None,
    guidance_scale: _Guidance = None,
    batch: _Batch = None,
    ladder: _Ladder = None,
    save_images: Annotated[bool, typer.Option(help="Keep the pictures when both phases are done.")] = True,
    allow_different: _AllowDifferent = False,
    device: Annotated[str, typer.Option(help="A kind of torch device; auto is the fastest one.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=most(Threads), help="Of the arithmetic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON on the last line.")] = False,
) -> None:
    """Measure models against their teacher, or anybody's pictures: draw prompts, score the pictures, write a report."""
    from fewstep.evaluation.folder import Extras
    from fewstep.evaluation.session import Order

    extras = Extras() if ladder is None else Extras(ladder=tuple(rung for rung in ladder if rung))
    order = Order(
        output=output,
        models=(*(models or ()), *(model or ())),
        pictures=tuple(pictures or ()),
        teacher=teacher,
        phase=phase,
        metrics=tuple(metrics or ()),
        settings=parse_settings(settings or ()),
        prompts=prompts,
        num_prompts=num_prompts,
        seeds=tuple(range(first_seed, first_seed + seeds)),
        steps=steps,
        guidance_scale=guidance_scale,
        batch=batch,
        extras=extras,
        save_images=save_images,
        allow_different=allow_different,
        device=device,
    )
    _run(order, threads=threads, as_json=as_json)


def _run(order: Any, *, threads: int | None, as_json: bool) -> None:
    import json

    from rich.console import Console

    from fewstep.devices import cpu_threads
    from fewstep.evaluation.session import run_evaluation

    with cpu_threads(threads):
        summary = run_evaluation(order, console=Console(stderr=as_json, highlight=False))
    if as_json and summary is not None:
        print(json.dumps(summary), flush=True)


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``METRIC.FIELD=VALUE``; values are read as YAML, so that numbers and lists are what they look like."""
    from fewstep.config.yaml_text import parse_yaml

    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        metric, dot, field = name.partition(".")
        if not (separator and dot and metric and field):
            raise ConfigError(f"--set {shown(text)} is no METRIC.FIELD=VALUE, such as --set fid.reference=FOLDER.")
        settings.setdefault(metric, {})[field] = parse_yaml(value, source=f"The value of --set {shown(text)}")
    return settings


@evaluate_app.command()
def convert(
    metric: Annotated[str, typer.Argument(help="Name of the metric whose checkpoint it is.")],
    source: Annotated[str, typer.Argument(help="A local file or folder, or a repository id.")],
    output: Annotated[Path, typer.Option(help="Folder to write; give it to the metric: --set METRIC.source=FOLDER.")],
    revision: Annotated[str | None, typer.Option(help="Of the repository.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read a .pt, .pth or .bin file, as weights only.")
    ] = False,
    settings: _MetricSettings = None,
) -> None:
    """Write a metric's checkpoint as mapped safetensors, once."""
    from fewstep.scores.convert import convert as convert_checkpoint

    further = parse_settings(settings or ()).get(metric)
    folder = convert_checkpoint(metric, source, output, revision=revision, allow_pickle=allow_pickle, settings=further)
    print(f"The checkpoint is in {folder}. Use it: fewstep evaluate --metrics {metric} --set {metric}.source={folder}")


@evaluate_app.command()
def metrics(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/metrics.md.")] = False,
) -> None:
    """List every metric: what its number means and what it may be compared with."""
    from fewstep.scores.registry import lines_of_cards, page_of_cards

    if as_markdown:
        print(page_of_cards(), end="")
    else:
        for line in lines_of_cards():
            print(line)


@evaluate_app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished evaluations.")],
    allow_different: _AllowDifferent = False,
) -> None:
    """Put the scores of several evaluations into one table."""
    from fewstep.evaluation.comparison import compare_folders

    print(compare_folders(folders, allow_different=allow_different), end="")
