"""The folder of an evaluation: what is where, and whether it belongs to what is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from fewstep.bounds import CountOrNone, Steps
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.evaluation.models import ModelEntry
from fewstep.evaluation.prompt_sets import PromptSet
from fewstep.evaluation.protocol_id import PictureOrigin
from fewstep.files import UnreadableError, explain_write_errors, read_json, write_json
from fewstep.scores.metric import Picture, PromptItem, drawn_at
from fewstep.scores.pictures import SUFFIXES, frame_paths
from fewstep.seals import BrokenSealError, require_no_links
from fewstep.section import Section

_T = TypeVar("_T")

_FILE = "evaluation.json"
_MODEL_FILE = "model.json"


class Extras(Section):
    """Pictures that only the report shows.

    Attributes:
        ladder: Numbers of steps at which the first prompts are drawn.
        ladder_prompts: How many prompts.
        strip_seeds: CountOrNone of one prompt.
        strip_prompts: How many prompts.
    """

    ladder: Annotated[tuple[Steps, ...], Field(max_length=100)] = (1, 2, 4, 8)
    ladder_prompts: CountOrNone = 4
    strip_seeds: CountOrNone = 8
    strip_prompts: CountOrNone = 2


@dataclass(frozen=True)
class Task:
    """What is drawn for every model.

    Attributes:
        prompts: The prompt set.
        seeds: One picture per prompt and seed.
        extras: Pictures for the report.
    """

    prompts: PromptSet
    seeds: tuple[int, ...]
    extras: Extras


class ModelRecord(Section):
    """``model.json``: an entry, and what drawing it told."""

    entry: ModelEntry
    versions: dict[str, str]
    calls_per_picture: float | None = None
    complete: bool = False


@dataclass(frozen=True)
class EvaluationFolder:
    """Paths and files of one evaluation."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path / _FILE

    def model_folder(self, name: str) -> Path:
        return self.path / "models" / name

    def picture_paths(self, entry: ModelEntry, item: PromptItem, seed: int, steps: int | None) -> tuple[Path, ...]:
        """Of one picture, or of every frame of one clip."""
        return frame_paths(self._place(entry, item, seed, steps), entry.sampling.frames)

    def _place(self, entry: ModelEntry, item: PromptItem, seed: int, steps: int | None) -> Path:
        told = "" if steps is None else f".steps{steps}"
        return self.model_folder(entry.name) / "pictures" / f"{item.id}.seed{seed}{told}.png"

    def scores_folder(self, model: str, key: str) -> Path:
        return self.model_folder(model) / "scores" / key

    def pictures(self, task: Task, record: ModelRecord) -> list[Picture]:
        """The pictures that are scored, prompt by prompt; of clips all frames in their order."""
        entry = record.entry
        steps, frames = entry.sampling.steps, entry.sampling.frames
        return [
            picture
            for item in task.prompts.items
            for seed in task.seeds
            for picture in drawn_at(self._place(entry, item, seed, steps), item, seed, frames=frames)
        ]

    def require_no_links(self) -> None:
        """Raise CheckpointError for a symbolic link where models have their files: writing could go anywhere."""
        try:
            require_no_links(self.path, "models")
        except BrokenSealError as error:
            raise CheckpointError(
                f"{error.path} {error}; an evaluation is written in its own folder only. Put the folder or the file "
                "itself there, or choose another --output."
            ) from error

    def write_task(self, task: Task) -> None:
        """Record what is drawn; refuse a folder that holds something else."""
        new = _plain(task)
        if self.file.exists():
            old = _read(self.file, _TaskFile, cure="choose another --output")
            for key, found in (("digest", old.digest), ("seeds", old.seeds)):
                if found != new[key]:
                    what = "prompts" if key == "digest" else f"seeds {shown(found)} instead of {shown(new[key])}"
                    raise ConfigError(f"{self.path} holds an evaluation of other {what}; choose another --output.")
        with explain_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.file, new)

    def read_task(self) -> Task:
        """Read back what is drawn, prompts included: the score phase needs nothing else."""
        if not self.file.is_file():
            found = next((path for path in self.path.glob("*") if path.suffix.lower() in SUFFIXES), None)
            if found is not None:
                raise ConfigError(
                    f"{self.path} holds pictures such as {shown(found.name)} and no {_FILE}; score pictures that "
                    f"another tool drew with: fewstep evaluate --pictures {self.path} --prompts FILE --output "
                    f"ANOTHER_FOLDER."
                )
            raise ConfigError(
                f"{self.path} holds no evaluation; draw its pictures first: "
                f"fewstep evaluate --phase generate --model MODEL --prompts FILE --output {self.path}"
            )
        plain = _read(self.file, _TaskFile, cure="draw into another --output")
        items = tuple(PromptItem(row.id, row.text, row.facts) for row in plain.items)
        prompts = PromptSet(plain.prompts, items)
        if prompts.digest != plain.digest:
            raise CheckpointError(
                f"{self.file} is damaged: its prompts are not those that were drawn; draw into another --output."
            )
        return Task(prompts, tuple(plain.seeds), plain.extras)

    def write_record(self, record: ModelRecord) -> None:
        with explain_write_errors(self.path):
            self.model_folder(record.entry.name).mkdir(parents=True, exist_ok=True)
        write_json(self.model_folder(record.entry.name) / _MODEL_FILE, record.model_dump(mode="json"))

    def record(self, name: str) -> ModelRecord | None:
        """What is known of a model's pictures, or None when none were drawn."""
        path = self.model_folder(name) / _MODEL_FILE
        if not path.is_file():
            return None
        record = _read(path, ModelRecord, cure="draw that model again")
        if record.entry.name != name:
            raise CheckpointError(
                f"{path} is damaged: it is about {shown(record.entry.name)}; give the folder that name, or draw that "
                "model again."
            )
        return record

    def records(self) -> list[ModelRecord]:
        """Every model that was drawn, students first, in the order of their names."""
        found = [record for record in self._records() if record is not None]
        return sorted(found, key=lambda record: (record.entry.role == "teacher", record.entry.name))

    def _records(self) -> Iterator[ModelRecord | None]:
        models = self.path / "models"
        if models.is_dir():
            yield from (self.record(folder.name) for folder in sorted(models.iterdir()) if folder.is_dir())

    def require_same(self, entry: ModelEntry, versions: dict[str, str]) -> ModelRecord | None:
        """The record of a model that was begun before, or None.

        Raises:
            ConfigError: Pictures under that name are of another model, or drawn in another way.
        """
        record = self.record(entry.name)
        if record is None:
            return None
        old = {**record.entry.model_dump(exclude={"model"}), "versions": record.versions}
        new = {**entry.model_dump(exclude={"model"}), "versions": versions}
        for key in new:
            if old[key] != new[key]:
                raise ConfigError(
                    f"{self.model_folder(entry.name)} holds pictures with {key} {_told(old[key], new[key])}; "
                    f"choose another --output, or another name: "
                    f"{'--pictures' if entry.role == 'pictures' else '--model'} {entry.model},name=another-name."
                )
        return record


def origin_of(task: Task, record: ModelRecord) -> PictureOrigin:
    """How a model's pictures came about, for its protocol ids."""
    return PictureOrigin(task.prompts.name, task.prompts.digest, task.seeds, record.entry.sampling, record.versions)


def _told(old: Any, new: Any) -> str:
    """The part of two values in which they differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [f"{key} {old.get(key)} instead of {new[key]}" for key in new if old.get(key) != new[key]]
        return ", ".join(parts)
    return f"{old} instead of {new}"


def _plain(task: Task) -> dict[str, Any]:
    return {
        "prompts": task.prompts.name,
        "digest": task.prompts.digest,
        "seeds": list(task.seeds),
        "extras": task.extras.model_dump(mode="json"),
        "items": [_plain_item(item) for item in task.prompts.items],
    }


def _plain_item(item: PromptItem) -> dict[str, Any]:
    return {"id": item.id, "text": item.text, "facts": dict(item.facts)}


class _ItemRow(BaseModel):
    id: str = Field(pattern="^[A-Za-z0-9_-]+$", description="part of a picture's name")
    text: str
    facts: dict[str, Any]


class _TaskFile(BaseModel):
    """``evaluation.json``."""

    prompts: str
    digest: str
    seeds: list[int]
    extras: Extras
    items: list[_ItemRow]


def _read(path: Path, shape: type[_T], *, cure: str) -> _T:
    try:
        return read_json(path, shape)
    except UnreadableError as error:
        raise CheckpointError(f"{path} is damaged: {error}; {cure}.") from error
