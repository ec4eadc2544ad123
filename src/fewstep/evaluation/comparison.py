"""Several finished evaluations in one table, if they were measured alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.evaluation.protocol_id import Measured, protocol_id, require_comparable
from fewstep.files import load_json


def compare_folders(folders: Sequence[Path], *, allow_different: bool = False) -> str:
    """A Markdown table of the models of all folders, with what differs under it.

    Raises:
        ConfigError: A folder holds no scores, or protocols differ and that was not allowed.
    """
    results = [(folder, _read(folder)) for folder in folders]
    scores = [score for folder, summary in results for score in _measured(folder, summary)]
    differences = require_comparable(scores, allow_different=allow_different)
    columns = list(dict.fromkeys((cell["metric"], cell["figure"]) for _, s in results for cell in s["scores"]))
    heads = " | ".join(figure for _, figure in columns)
    lines = [f"| model | steps | {heads} |", f"|---|---:|{'---:|' * len(columns)}"]
    for folder, summary in results:
        lines += [_row(folder, summary, model, columns) for model in summary["models"]]
    notes = [f"Not comparable: {text}" for text in differences]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _row(folder: Path, summary: dict[str, Any], model: dict[str, Any], columns: Sequence[tuple[str, str]]) -> str:
    found = {(c["metric"], c["figure"]): c for c in summary["scores"] if c["model"] == model["name"]}
    texts = [_text(found.get(column)) for column in columns]
    return f"| {folder.name}: {model['name']} | {model['sampling']['steps'] or '-'} | {' | '.join(texts)} |"


def _text(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    interval = cell["interval"]
    reach = "" if interval is None else f" [{interval['low']:.4g}, {interval['high']:.4g}]"
    return f"{cell['value']:.4g}{reach}"


def _measured(folder: Path, summary: dict[str, Any]) -> list[Measured]:
    unique = {(cell["model"], cell["metric"]): cell for cell in summary["scores"]}
    known = summary["protocols"]
    return [
        Measured(
            f"{folder.name}: {cell['model']}",
            cell["role"],
            cell["metric"],
            protocol_id(known[cell["protocol"]]),
            known[cell["protocol"]],
        )
        for cell in unique.values()
    ]


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "scores.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no scores.json; score it first: fewstep evaluate --phase score --output {folder}"
        )
    cure = "Score the evaluation again"
    summary = load_json(path, _Summary, cure=cure)
    unknown = {score.protocol for score in summary.scores} - summary.protocols.keys()
    if unknown:
        raise CheckpointError(f"{path} cannot be used: it does not say what protocol {shown(min(unknown))} is. {cure}.")
    return summary.model_dump()


class _Interval(BaseModel):
    low: float
    high: float


class _Score(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model: str
    role: str
    metric: str
    figure: str
    value: float
    interval: _Interval | None
    protocol: str


class _Sampling(BaseModel):
    steps: int | None


class _Model(BaseModel):
    name: str
    sampling: _Sampling


class _Summary(BaseModel):
    """Of ``scores.json``, what a comparison needs."""

    scores: list[_Score]
    models: list[_Model]
    protocols: dict[str, dict[str, Any]]
