"""Evaluations without a model: pictures painted by the test, and metrics whose numbers can be read off them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fewstep.evaluation.folder import EvaluationFolder, Extras, ModelRecord, Task
from fewstep.evaluation.models import ModelEntry, Sampling, Side
from fewstep.evaluation.prompt_sets import PromptSet
from fewstep.scores.metric import (
    Finding,
    Metric,
    MetricCard,
    MetricError,
    MetricSettings,
    Picture,
    PromptItem,
)

NO_EXTRAS = Extras(ladder=(), ladder_prompts=0, strip_seeds=1, strip_prompts=0)
VERSIONS = {"fewstep": "1"}


def card(name: str, *, higher_is_better: bool = True) -> MetricCard:
    return MetricCard(
        name=name,
        title="A metric of the tests",
        formula="see its code",
        scale="0 to 255",
        higher_is_better=higher_is_better,
        preprocessing="none",
        licence="none",
        comparable="with itself",
        source=None,
    )


class Brightness(Metric):
    """The mean of a picture's bytes; counts what it is asked for."""

    card = card("brightness")
    loaded_now: list[str] = []  # noqa: RUF012 (shared on purpose: which metrics are in memory)
    most_loaded = 0

    def __init__(self, settings: MetricSettings | None = None, *, unreadable: str | None = None) -> None:
        super().__init__(settings or MetricSettings(batch=2))
        self.unreadable = unreadable
        self.asked: list[str] = []

    def check(self, items: Sequence[PromptItem]) -> None:
        pass

    def load(self, device: torch.device) -> None:
        Brightness.loaded_now.append(self.card.name)
        Brightness.most_loaded = max(Brightness.most_loaded, len(Brightness.loaded_now))

    def unload(self) -> None:
        if self.card.name in Brightness.loaded_now:
            Brightness.loaded_now.remove(self.card.name)

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        findings = []
        for picture, image in zip(pictures, images, strict=True):
            if picture.path.name == self.unreadable:
                raise MetricError(f"brightness cannot read {picture.path}: it is torn.")
            self.asked.append(f"{picture.path.parts[-3]}/{picture.path.name}")
            findings.append(Finding(float(np.asarray(image).mean())))
        return findings


class Darkness(Brightness):
    """255 minus the brightness: lower brightness is better."""

    card = card("darkness")

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        return [Finding(255 - finding.score) for finding in super().look(pictures, images)]


class Spread(Metric):
    """The standard deviation of the pictures' mean colours."""

    card = card("spread")
    of_sets = True

    def __init__(self, settings: MetricSettings | None = None) -> None:
        super().__init__(settings or MetricSettings(batch=2))

    def check(self, items: Sequence[PromptItem]) -> None:
        pass

    def load(self, device: torch.device) -> None:
        Brightness.load(self, device)  # type: ignore[arg-type]

    def unload(self) -> None:
        Brightness.unload(self)  # type: ignore[arg-type]

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        means = [np.asarray(image).mean(axis=(0, 1)).tolist() for image in images]
        return [Finding(features=torch.tensor(mean)) for mean in means]

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        rows = torch.stack([finding.features for finding in findings if finding.features is not None])
        return {"spread": float(rows.double().std(dim=0, correction=0).mean())}


def sampling(**changes: object) -> Sampling:
    plain = {
        "sampler": "own",
        "steps": 4,
        "sigmas": None,
        "guidance_scale": 1.0,
        "height": 8,
        "width": 8,
        "lora": None,
        "lora_scale": 1.0,
        "dtype": "fp32",
    }
    return Sampling.model_validate({**plain, **changes})


def record(name: str, role: Side = "student", **changes: object) -> ModelRecord:
    entry = ModelEntry(
        name=name, role=role, model=f"models/{name}", fingerprint=f"sha256:{name}", sampling=sampling(**changes)
    )
    return ModelRecord(entry=entry, versions=VERSIONS, calls_per_picture=4.0, complete=True)


def task_of(*texts: str, seeds: tuple[int, ...] = (0,), extras: Extras = NO_EXTRAS) -> Task:
    items = tuple(PromptItem(f"{number:05d}", text) for number, text in enumerate(texts))
    return Task(PromptSet("painted", items), seeds, extras)


def paint(
    path: Path, task: Task, models: dict[str, Callable[[int, int], int]], *, steps: int = 4
) -> tuple[EvaluationFolder, list[ModelRecord]]:
    """Write an evaluation's folder: every picture one grey, by the position of its prompt and its seed.

    The model called ``teacher`` is the teacher.
    """
    folder = EvaluationFolder(path)
    folder.write_task(task)
    records = []
    for name, grey in models.items():
        made = record(name, "teacher" if name == "teacher" else "student", steps=steps)
        folder.write_record(made)
        for position, item in enumerate(task.prompts.items):
            for seed in task.seeds:
                target = folder.picture_paths(made.entry, item, seed, steps)[0]
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (grey(position, seed),) * 3).save(target)
        records.append(made)
    return folder, records
