"""What a run tells about its student: settings, prompts, measurements, a sample sheet, the licence of its teacher."""

from dataclasses import dataclass
from pathlib import Path

from fewstep.backbones.licence import Licence, licence_of
from fewstep.config.prompt_sources import DemoPrompts, HubPrompts, NamedPrompts, PromptFile, PromptSource
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.prompts.training_sets import TRAINING_SETS
from fewstep.roles.weights import LoraWeights
from fewstep.runs.folder import RunFolder
from fewstep.runs.metrics import all_lines
from fewstep.runs.places import sheets_in, update_of

_SCORES = "scores.md"


@dataclass(frozen=True)
class Story:
    """What a model card says of a run.

    Attributes:
        settings: How it was trained, by name.
        data: The prompts.
        measured: Markdown; empty where nobody measured.
        sheet: A picture of teacher over student, and a sentence about it; None where none was painted.
        licence: Of the teacher.
    """

    settings: dict[str, str]
    data: str
    measured: str
    sheet: tuple[Path, str] | None
    licence: Licence | None


def tell(run: RunFolder, steps: int, *, scores: Path | None = None) -> Story:
    """Collect what a run says of its student after so many steps.

    Args:
        scores: The folder of an evaluation of it.

    Raises:
        ConfigError: There are no scores in that folder.
    """
    config = run.config
    return Story(
        _settings(config),
        _data(config.prompts),
        _measured_in(run, steps) if scores is None else _scores(scores),
        _sheet(run, steps),
        licence_of(config.backbone),
    )


def require_scores(folder: Path) -> None:
    """Raise ConfigError when a folder holds no scores."""
    if not (folder / _SCORES).is_file():
        raise ConfigError(f"{folder} holds no {_SCORES}; give the folder of an evaluation: fewstep evaluate MODEL.")


def _settings(config: RunConfig) -> dict[str, str]:
    weights = config.student.weights
    terms = [name for name, term in config.terms.model_dump().items() if term is not None]
    size = ", ".join(f"{height} x {width}" for height, width in config.backbone.training_sizes)
    return {
        "terms": ", ".join(terms),
        "schedule": config.schedule.kind,
        "noise levels": ", ".join(f"{level:g}" for level in config.sampling.levels),
        "size": f"{size} pixels",
        "batch": str(config.batch),
        "weights trained": f"factors of rank {weights.rank}" if isinstance(weights, LoraWeights) else "all",
        "learning rates": f"{config.student.lr:g} (student), {config.fake_score.lr:g} (fake score)",
        "updates of fake score per update": str(config.student.every),
    }


def _data(prompts: PromptSource) -> str:
    match prompts:
        case PromptFile():
            return f"The prompts of a file, `{Path(prompts.path).name}`. No pictures."
        case DemoPrompts():
            return f"The prompts of the embedded task {prompts.task}. No pictures."
        case HubPrompts():
            return f"The prompts of the dataset `{prompts.dataset}` (column `{prompts.column}`). No pictures."
        case NamedPrompts():
            found = TRAINING_SETS[prompts.name]
            limit = "" if prompts.limit is None else f"{prompts.limit:,} of "
            return f"{limit}the prompts of the set `{prompts.name}` ({found.licence}). No pictures.".capitalize()


def _scores(folder: Path) -> str:
    require_scores(folder)
    return (folder / _SCORES).read_text(encoding="utf-8").strip()


def _measured_in(run: RunFolder, steps: int) -> str:
    """The run's last measurement up to a step, as a table."""
    found: dict[str, float] = {}
    for line in all_lines(run.metrics):
        figures = {name: value for name, value in line.figures.items() if name.startswith("evaluation/")}
        if figures and line.step < steps:
            found = figures
    if not found or run.config.evaluation is None:
        return ""
    asked = run.config.evaluation
    rows = "".join(f"| {name.removeprefix('evaluation/')} | {value:.4g} |\n" for name, value in found.items())
    return (
        f"While it trained, on the first {asked.num_prompts} prompts of the run with {asked.num_seeds} pictures each; "
        f"figures without a teacher's beside them, for watching a run and no more.\n\n| figure | |\n|---|---:|\n{rows}"
    ).strip()


def _sheet(run: RunFolder, steps: int) -> tuple[Path, str] | None:
    """The newest sheet that the weights of a step were painted on."""
    config = run.config
    painted = [path for path in sheets_in(run.sheets) if update_of(path) <= steps // config.student.every]
    if not painted:
        return None
    return painted[-1], (
        f"The student after {update_of(painted[-1])} updates (below) and its teacher in "
        f"{config.sampling.teacher_steps} steps (above), from the same noise. Nothing was picked: the prompts are "
        f"spread evenly over those of the run, and every picture has the seed {config.report.sheet_seed}."
    )
