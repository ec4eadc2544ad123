"""The commands that look at runs: all of a folder, one of them, several side by side."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewstep.errors import ConfigError, shown

if TYPE_CHECKING:
    from fewstep.runs.comparison import RunComparison
    from fewstep.runs.overview import RunRow
    from fewstep.runs.summary import RunSummary

_SortKey = Literal["age", "name", "recipe", "state", "updates"]

_Output = Annotated[
    Path | None, typer.Option(help="Draw losses and measurements over updates: a PNG, or an HTML page with tables too.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder that holds the runs.")] = Path("runs"),
    sort: Annotated[_SortKey, typer.Option(help="The youngest step first, the most updates first, or A to Z.")] = "age",
    as_json: _AsJson = False,
) -> None:
    """List the runs of a folder: how far each is, its last losses, how old its last step is, its state."""
    from fewstep.runs.overview import list_runs, sorted_rows

    rows = sorted_rows(list_runs(root), sort)
    if as_json:
        _print_json([row.plain() for row in rows])
    elif rows:
        print(_aligned([("run", "recipe", "state", "updates", "last step", "losses"), *map(_cells, rows)]))
    else:
        print(f"There is no run in {shown(str(root), 400, quoted=False)}.")


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    output: _Output = None,
    as_json: _AsJson = False,
) -> None:
    """Tell everything that a run's folder says: settings, sessions, progress, figures, checkpoints, sheets."""
    from fewstep.runs.comparison import compare_runs
    from fewstep.runs.summary import summary_of

    _require_drawable(output)
    found = summary_of(run)
    if as_json:
        _print_json(found.plain())
    else:
        for heading, lines in _told(found).items():
            for number, line in enumerate(lines):
                print(f"{heading if number == 0 else '':<12} {shown(line, 500, quoted=False)}")
    if output is not None:
        _draw(compare_runs([run]), output)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of runs.")],
    output: _Output = None,
    as_json: _AsJson = False,
) -> None:
    """Put runs side by side: settings that differ, last and best figures, and with --output the curves."""
    from fewstep.runs.charts import told_figure
    from fewstep.runs.comparison import compare_runs

    if len(runs) < 2:
        raise ConfigError("There is one run to compare; name two or more.")
    _require_drawable(output)
    found = compare_runs(runs)
    if as_json:
        _print_json(found.plain())
    else:
        names = [shown(name, 60, quoted=False) for name in found.names]
        settings = [_setting(path, values) for path, values in found.settings.items()]
        figures = [(name, *map(told_figure, values)) for name, values in found.figures.items()]
        print(_aligned([("setting", *names), *settings]) if settings else "No setting differs.")
        print(f"\n{_aligned([('figure', *names), *figures])}" if figures else "\nThere are no figures yet.")
    if output is not None:
        _draw(found, output)


def _require_drawable(output: Path | None) -> None:
    from fewstep.runs.charts import require_drawable

    if output is not None:
        require_drawable(output)


def _draw(compared: "RunComparison", output: Path) -> None:
    from fewstep.runs.charts import write_comparison

    write_comparison(compared, output)
    print(f"The curves are in {output}.", file=sys.stderr)


def _setting(path: str, values: Sequence[Any]) -> list[str]:
    from fewstep.config.identity import shown_setting

    return [path, *(shown(shown_setting(value), 60, quoted=False) for value in values)]


def _told(found: "RunSummary") -> dict[str, list[str]]:
    """What there is to say under each heading; nothing is left out."""
    row = found.row
    ago = "" if row.age is None else f", last step {row.age} ago"
    saved = [f"{name}{_mark(name == found.latest, name == found.best)}" for name in found.checkpoints]
    best = {name: f", at the best checkpoint {value:.4g}" for name, value in found.best_evaluation.items()}
    measured = [f"{name} {value:.4g}{best.get(name, '')}" for name, value in found.evaluation.items()]
    differs = found.changes or ["in nothing from the recipe of that name"]
    if found.not_compared is not None:
        differs = [f"not known: {found.not_compared}"]
    return {
        "run": [str(row.path)],
        "recipe": [f"{row.recipe}, settings {found.config_hash}"],
        "state": [f"{row.state}, {row.updates} of {row.asked} updates{ago}"]
        + ([f"damaged: {row.problem}"] if row.problem else []),
        "sessions": [_session(session) for session in found.sessions],
        "differs": differs,
        "figures": [f"{name} {value:.6g}" for name, value in found.figures.items()] or ["none yet"],
        "evaluation": measured or ["none"],
        "checkpoints": saved or ["none"],
        "sheets": [f"{len(found.sheets)}, the newest {found.sheets[-1]}"] if found.sheets else ["none"],
    }


def _mark(latest: bool, best: bool) -> str:
    words = [word for word, true in (("latest", latest), ("best", best)) if true]
    return f" ({', '.join(words)})" if words else ""


def _session(session: dict[str, Any]) -> str:
    git = session.get("git") or {}
    code = f", {str(git.get('revision'))[:10]}{' and changes' * bool(git.get('changed'))}" if git else ""
    return f"{session.get('started', 'at a time that is not noted')}, fewstep {session['fewstep']}{code}"


def _cells(row: "RunRow") -> tuple[str, ...]:
    losses = "  ".join(f"{name} {value:.4g}" for name, value in row.losses.items())
    return (
        shown(row.name, quoted=False),
        "-" if row.recipe is None else shown(row.recipe, quoted=False),
        row.state,
        f"{'-' if row.updates is None else row.updates}/{'-' if row.asked is None else row.asked}",
        row.age or "-",
        shown(losses if row.problem is None else row.problem, 300, quoted=False) or "-",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _print_json(value: Any) -> None:
    """Plain data as JSON, in which a figure that is no number is null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
