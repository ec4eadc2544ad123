"""What the words behind ``fewstep ui`` name: runs, and models to draw with, each loaded when it is first asked for."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.source import EMBEDDED_TEACHER, MODEL_INDEX, embedded_task
from fewstep.bounds import DtypeName
from fewstep.config.run_config import RunConfig
from fewstep.devices import DTYPES
from fewstep.errors import CheckpointError, FewstepError
from fewstep.evaluation.models import find_teacher
from fewstep.export.diffusers_folder import student_facts
from fewstep.export.stock_code import example_prompt
from fewstep.export.weights import put_student, read_student
from fewstep.runs.folder import RunFolder
from fewstep.runs.overview import list_runs, sorted_rows
from fewstep.runs.places import CHECKPOINTS, checkpoints
from fewstep.sampling.drawing import load
from fewstep.sampling.generate import DrawingModel
from fewstep.sampling.loaded import with_network
from fewstep.sampling.metadata import model_title
from fewstep.sampling.request import Drawing, drawing_of


@dataclass(frozen=True)
class Offer:
    """A model of the page.

    Attributes:
        name: Its own among those of the page.
        drawing: The request that asks for it.
        few: Whether it draws in few steps: a student, or a model that is known to be distilled.
        steps, guidance_scale: Its own.
        size: Height and width of its pictures, in pixels.
        example: A prompt to begin with.
        chosen: Whether it draws unless others are chosen.
        load: Reads its weights.
        stands: What they are read from, which is another checkpoint once a run has saved again.
    """

    name: str
    drawing: Drawing
    few: bool
    steps: int
    guidance_scale: float
    size: tuple[int, int]
    example: str
    chosen: bool
    load: Callable[[], DrawingModel]
    stands: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Named:
    """What a command line names.

    Attributes:
        notes: Sentences about what of it cannot be used.
    """

    offers: tuple[Offer, ...]
    runs: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def of_run(self, path: Path) -> list[Offer]:
        """A run's teacher and its student; nothing where these cannot be drawn with."""
        students = [offer for offer in self.offers if offer.drawing.model.model == str(path)]
        teacher = RunFolder.open(path).config.backbone.model if students else None
        return [offer for offer in self.offers if offer.drawing.model.model == teacher and not offer.few] + students


def named_by(words: Sequence[str], *, device: str = "auto", dtype: DtypeName | None = None) -> Named:
    """Open what is named, and the teachers of the students among it; no weight is loaded.

    Args:
        words: Folders of runs, folders that hold runs, and models: ``MODEL`` or ``MODEL,KEY=VALUE,...``. Without any,
            the embedded teacher.
        device: Of torch; ``auto`` is the fastest one.
        dtype: Of networks and text encoders; None is each model's own choice, or ``fp32``.

    Raises:
        ConfigError: One of them is neither a run nor a model that can be drawn with.
        CheckpointError: A file of one is damaged.
    """
    said: dict[str, Any] = {"device": device} | ({} if dtype is None else {"dtype": dtype})
    offers: list[Offer] = []
    runs: dict[Path, bool] = {}
    for word in words or (EMBEDDED_TEACHER,):
        found = _runs_of(Path(word))
        runs |= {path: number == 0 for number, path in enumerate(found)}
        offers += [] if found else _of_model(word, said)
    notes = []
    for path, chosen in runs.items():
        try:
            offers += _of_run(path, said, chosen=chosen)
        except FewstepError as error:  # its losses and sheets can be looked at all the same
            notes.append(f"The student of {path} cannot be drawn with: {error}")
    return Named(_distinct(offers), tuple(runs), tuple(notes))


def _runs_of(path: Path) -> list[Path]:
    """The runs that a path names or holds, the newest first; none where it is a model, or nothing."""
    if not path.is_dir() or (path / MODEL_INDEX).is_file():
        return []
    rows = sorted_rows(list_runs(path), "age")
    whole = [row.path for row in rows if row.state != "damaged"]
    if rows and not whole:
        raise CheckpointError(f"The run {rows[0].path} cannot be looked at: {rows[0].problem}")
    return whole


def _of_model(word: str, said: Mapping[str, Any]) -> list[Offer]:
    """A model, and behind a student its teacher."""
    drawing = drawing_of(word, said)
    offer = _offer(drawing, name=drawing.model.name or model_title(drawing.model.model), chosen=True)
    try:
        teacher = find_teacher([drawing.model]) if offer.few else None
        # of a teacher that lay in a folder, a student tells the last part of its path only
        if teacher is None or not (_is_here(teacher.model) or "/" in teacher.model):
            return [offer]
        spec = teacher.model_copy(update={"name": None, "height": drawing.model.height, "width": drawing.model.width})
        return [_teacher(Drawing(model=spec, device=drawing.device)), offer]
    except FewstepError:  # it is not to be had, and nobody named it
        return [offer]


def _is_here(model: str) -> bool:
    return embedded_task(model) is not None or Path(model).is_dir()


def _teacher(drawing: Drawing) -> Offer:
    place = drawing.model.model
    return _offer(drawing, name=f"teacher {model_title(place)}", chosen=_is_here(place))


def _offer(drawing: Drawing, *, name: str, chosen: bool) -> Offer:
    model = load(drawing.model_copy(update={"offload": True}))  # reads nothing but JSON
    spec = drawing.model
    scale = model.default_guidance_scale() if spec.guidance_scale is None else spec.guidance_scale
    return Offer(
        name=name,
        drawing=drawing,
        few=model.few_steps is not None or (model.facts is not None and model.facts.role == "student"),
        steps=len(model.chosen_sigmas(spec.steps, spec.sigmas)),
        guidance_scale=scale,
        size=(model.adapter.config.height, model.adapter.config.width),
        example=example_prompt(model.adapter),
        chosen=chosen,
        load=partial(load, drawing),
    )


def _of_run(path: Path, said: Mapping[str, Any], *, chosen: bool) -> list[Offer]:
    """A run's teacher, and its student as the newest checkpoint has it."""
    config = RunFolder.open(path).config
    backbone, sampling = config.backbone, config.sampling
    told = {"steps": sampling.teacher_steps, "guidance_scale": sampling.teacher_guidance_scale, **said}
    told |= {"size": backbone.training_sizes[0]} | ({"lora": backbone.lora} if backbone.lora else {})
    teacher = drawing_of(backbone.model, told)
    student = drawing_of(str(path), said)
    adapter = create_model_adapter(backbone.model, backbone)
    return [
        replace(_teacher(teacher), chosen=chosen and _is_here(backbone.model)),
        Offer(
            name=path.name,
            drawing=student,
            few=True,
            steps=len(sampling.levels),
            guidance_scale=adapter.guidance.off,
            size=backbone.training_sizes[0],
            example=example_prompt(adapter),
            chosen=chosen,
            load=partial(_load_student, path, config, student),
            stands=lambda: checkpoints(path / CHECKPOINTS)[-1:],
        ),
    ]


def _load_student(path: Path, config: RunConfig, drawing: Drawing) -> DrawingModel:
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    adapter = adapter.at_size(*config.backbone.training_sizes[0])
    student = read_student(path)
    dtype = DTYPES[drawing.model.dtype]
    network = adapter.load_network(dtype=dtype)
    put_student(network, student, origin=str(path))
    facts = student_facts(adapter, config.sampling.levels, student.provenance, step=config.simulation.step)
    return with_network(adapter, network, drawing.device, dtype=dtype, facts=facts)


def _distinct(offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Each once, as a teacher that several students have, and each under a name of its own."""
    once: dict[tuple[object, ...], Offer] = {}
    for offer in offers:
        key = offer.drawing.model.model, offer.drawing.loras, offer.size, offer.steps, offer.guidance_scale
        once[key] = replace(offer, chosen=offer.chosen or once[key].chosen) if key in once else offer
    names = Counter[str]()
    found = []
    for offer in once.values():
        names[offer.name] += 1
        found.append(offer if names[offer.name] == 1 else replace(offer, name=f"{offer.name} ({names[offer.name]})"))
    return tuple(found)
