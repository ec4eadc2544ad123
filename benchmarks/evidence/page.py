"""Write the tables and plots of docs/evidence.md from the outcomes: python -m benchmarks.evidence.page

What has not been run is said to be not run; a test compares the page and its plots with the files.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.evidence.findings import Findings, Line, Point
from benchmarks.evidence.intervals import Estimate, difference, mean_of, shared_level
from benchmarks.evidence.outcome import read_outcomes
from benchmarks.evidence.plots import Dot, Panel, Series, svg
from benchmarks.evidence.study import BUDGETS, Group, load_study
from benchmarks.evidence.task import TASKS
from benchmarks.pages import RESULTS, ROOT, filled, table
from fewstep.files import write_text

STUDY = Path(__file__).with_name("digits.json")
PAGE = ROOT / "docs" / "evidence.md"
NOT_RUN = "not run"


def results_of(study: Path) -> Path:
    """Where the outcomes of a study are kept."""
    return RESULTS / "evidence" / study.stem


def findings_of(study: Path = STUDY) -> Findings:
    """A study with the outcomes that are there."""
    stated = load_study(study)
    return Findings(stated, TASKS[stated.task](), read_outcomes(results_of(study)))


def state_table(found: Findings) -> str:
    """How much of the study has been run."""
    rows: list[tuple[str, ...]] = [
        ("group", "methods", "trainings", "made", "of them diverged", "made, not at all steps", "not run")
    ]
    for group in found.study.groups:
        runs = {run.key: run for run in found.runs if run.group == group.name}
        there = [found.outcomes[key] for key in runs if key in found.outcomes]
        whole = sum(outcome.serves(runs[outcome.key]) for outcome in there)
        diverged = sum(outcome.diverged is not None for outcome in there)
        missing = len(runs) - len(there)
        counts = (len(group.methods), len(runs), whole, diverged, len(there) - whole, missing)
        rows.append((group.name, *map(str, counts)))
    return table(rows)


def comparison_table(found: Findings, group: Group) -> str:
    """Each method at its best scale, and at the reference's accuracy, beside the reference."""
    task, reference = found.task, found.study.reference
    distance, accuracy, recall = task.distance, task.accuracy, task.recall
    level = shared_level(_num_differences(found, group))
    at = found.equal_accuracy
    same = f"{recall} at equal {accuracy}" if at is None else f"{recall} at {accuracy} {at:.3f}"
    beside = (f"{distance} minus {reference}'s", f"{same}, minus {reference}'s")
    rows: list[tuple[str, ...]] = [
        ("method", "trained for", "updates", "forwards", "best at", "seeds", distance, accuracy, recall, *beside)
    ]
    for line in found.lines(group):
        best, runs = line.best(task), line.points[0].runs
        cost = (line.trained_for, str(runs[0].updates), f"{runs[0].updates * runs[0].units:.0f}")
        if best is None:
            diverged = any(point.diverged for point in line.points)
            rows.append((line.method, *cost, "diverged" if diverged else NOT_RUN, *["-"] * 6))
            continue
        told = [_told(_mean(found, best, figure), task.figures[figure]) for figure in (distance, accuracy, recall)]
        against = [_told(one, digits, signed=True) for one, digits in _differences(found, line, level)]
        seeds = str(len(best.values(distance, task.steps)))
        rows.append((line.method, *cost, _scale(best.scale), seeds, *told, *against))
    return table(rows)


def steps_table(found: Findings) -> str:
    """Every method of the first group at its best scale, at other numbers of steps."""
    group = found.study.groups[0]
    steps = sorted(group.steps)
    figure, recall = found.task.distance, found.task.recall
    rows: list[tuple[str, ...]] = [("method", "seeds", *(f"{figure}, {recall} at {n}" for n in steps))]
    for line in _at_equal_updates(found):
        best = line.best(found.task)
        if best is None or not any(best.values(figure, n) for n in steps if n != found.task.steps):
            rows.append((line.method, NOT_RUN, *["-"] * len(steps)))
            continue
        cells = [f"{_told(_mean(found, best, figure, n), 2)}, {_told(_mean(found, best, recall, n), 2)}" for n in steps]
        measured = sorted({len(best.values(figure, n)) for n in steps})
        rows.append(
            (line.method, " to ".join(str(seeds) for seeds in dict.fromkeys((measured[0], measured[-1]))), *cells)
        )
    return table(rows)


def noise_table(found: Findings) -> str:
    """How much trainings and noise seeds differ in each figure."""
    two, one = "differ by chance, two means of three", "and two single trainings"
    rows: list[tuple[str, ...]] = [
        ("figure", "spread of trainings", "degrees of freedom", "spread of noise seeds", two, one)
    ]
    for figure, digits in found.task.figures.items():
        spread, noise = (of(figure, found.task.steps) for of in (found.spread, found.noise_spread))
        told = "-" if noise is None else f"{noise.deviation:.{digits + 1}f}"
        if spread is None:
            rows.append((figure, NOT_RUN, "0", told, "-", "-"))
            continue
        reaches = [f"{spread.reach(weight):.{digits + 1}f}" for weight in (2 / 3, 2)]
        rows.append((figure, f"{spread.deviation:.{digits + 1}f}", str(spread.freedom), told, *reaches))
    return table(rows)


def published_table(found: Findings) -> str:
    """The paper's ablation beside ours, both against the whole method."""
    methods, reference = found.study.methods, found.study.reference
    full = methods[reference].published
    others = {name: one.published for name, one in methods.items() if name != reference}
    theirs = {} if full is None else {name: score - full for name, score in others.items() if score is not None}
    figure = found.task.distance
    rows: list[tuple[str, ...]] = [
        ("method", "HPSv3 minus the whole method's, paper", f"{figure} minus {reference}'s, here", "verdict")
    ]
    for name, there in theirs.items():
        (here, digits), _ = _differences(found, found.line(name), shared_level(len(theirs)))
        if here is None:
            verdict = NOT_RUN
        elif not here.beyond_noise:
            verdict = "noise here"
        else:
            # a larger score is better there, a smaller distance here
            verdict = "as in the paper" if (there < 0) == (here.value > 0) else "against the paper"
        rows.append((name, f"{there:+.3f}", _told(here, digits, signed=True), verdict))
    return table(rows)


def points_table(found: Findings, lines: Iterable[Line]) -> str:
    """Every point that was measured, each figure as the mean over seeds."""
    rows: list[tuple[str, ...]] = [("method", "trained for", "at", "seeds", *found.task.figures)]
    for line in lines:
        for point in line.points:
            means = {figure: point.mean(figure, found.task.steps) for figure in found.task.figures}
            seeds = f"{len(point.outcomes)}" + (f", {len(point.diverged)} diverged" if point.diverged else "")
            known = [f"{value:.{found.task.figures[name]}f}" for name, value in means.items() if value is not None]
            if known or point.diverged:
                cells = known or ["-"] * len(means)
                rows.append((line.method, line.trained_for, _scale(point.scale), seeds, *cells))
    return table(rows)


def curves_plot(found: Findings) -> str:
    """Distance and recall against accuracy: a curve over the scale for each method of the first group."""
    task = found.task
    panels = []
    for figure in (task.distance, task.recall):
        for budget, title in BUDGETS.items():
            names = [method.name for method in _main(found).methods]
            series = [Series(name, _dots(found, found.line(name, budget), figure)) for name in names]
            marks = [
                Dot(figures[task.accuracy], figures[figure], label=name) for name, figures in task.references().items()
            ]
            panels.append(Panel(title, task.accuracy, figure, [*series, Series("teacher, data", marks, joined=False)]))
    return svg(panels, columns=2, title=f"{task.distance} and {task.recall} against {task.accuracy}, over the scale")


def steps_plot(found: Findings) -> str:
    """Distance and recall against network calls of a picture."""
    panels = []
    steps = sorted(_main(found).steps)
    for figure in (found.task.distance, found.task.recall):
        series = []
        for line in _at_equal_updates(found):
            best = line.best(found.task)
            means = [] if best is None else [(n, _mean(found, best, figure, n)) for n in steps]
            series.append(Series(line.method, [Dot(n, one.value, one.reach) for n, one in means if one is not None]))
        panels.append(Panel("equal updates", "network calls of a picture", figure, series, ticks=steps))
    return svg(panels, columns=2, title=f"{found.task.distance} and {found.task.recall} against network calls")


def tables_of(found: Findings) -> Mapping[str, Callable[[], str]]:
    """What stands between the page's markers, by name."""
    every = [line for group in found.study.groups for line in found.lines(group)]
    compared = {group.name: partial(comparison_table, found, group) for group in found.study.groups[:2]}
    whole: dict[str, Callable[[Findings], str]] = {
        "state": state_table,
        "steps": steps_table,
        "noise": noise_table,
        "published": published_table,
    }
    return {
        **compared,
        **{name: partial(write, found) for name, write in whole.items()},
        "points": lambda: points_table(found, every),
    }


def plots_of(found: Findings) -> Mapping[str, str]:
    """The page's plots, by the name of their file beside it."""
    return {"evidence-curves.svg": curves_plot(found), "evidence-steps.svg": steps_plot(found)}


def _main(found: Findings) -> Group:
    return found.study.groups[0]


def _at_equal_updates(found: Findings) -> list[Line]:
    return [found.line(method.name) for method in _main(found).methods]


def _dots(found: Findings, line: Line, figure: str) -> list[Dot]:
    dots = []
    for point in line.points:
        x, y = _mean(found, point, found.task.accuracy), _mean(found, point, figure)
        if x is not None and y is not None:
            dots.append(Dot(x.value, y.value, y.reach, label=_scale(point.scale)))
    return dots


def _mean(found: Findings, point: Point, figure: str, steps: int | None = None) -> Estimate | None:
    at = found.task.steps if steps is None else steps
    values = point.values(figure, at)
    return mean_of(values, found.spread(figure, at)) if values else None


def _differences(found: Findings, line: Line, level: float) -> list[tuple[Estimate | None, int]]:
    """Of the least distance, and of recall at equal accuracy, from the reference's, with their decimals."""
    task, at = found.task, found.equal_accuracy
    if line.method == found.study.reference:
        return [(None, 0), (None, 0)]
    best, others = line.best(task), found.reference.best(task)
    distances = None
    if best is not None and others is not None:
        pair = (best.values(task.distance, task.steps), others.values(task.distance, task.steps))
        distances = difference(*pair, found.spread(task.distance, task.steps), level=level)
    recalls, theirs = ([] if at is None else one.recalls_at(at, task) for one in (line, found.reference))
    same = difference(recalls, theirs, found.recall_spread, level=level) if recalls and theirs else None
    return [(distances, task.figures[task.distance]), (same, task.figures[task.recall])]


def _num_differences(found: Findings, group: Group) -> int:
    return sum(one is not None for line in found.lines(group) for one, _ in _differences(found, line, 0.5))


def _told(estimate: Estimate | None, digits: int, *, signed: bool = False) -> str:
    """A value with its interval; a difference says too whether it is noise."""
    if estimate is None:
        return "-"
    value = f"{estimate.value:{'+' if signed else ''}.{digits}f}"
    reach = "" if estimate.reach is None else f" ± {estimate.reach:.{digits}f}"
    if not signed:
        return f"{value}{reach}"
    return f"**{value}{reach}**" if estimate.beyond_noise else f"{value}{reach}, noise"


def _scale(scale: float | None) -> str:
    return "-" if scale is None else f"{scale:g}"


def main() -> None:
    found = findings_of()
    for name, plot in plots_of(found).items():
        write_text(PAGE.with_name(name), plot)
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), tables_of(found)))


if __name__ == "__main__":
    main()
