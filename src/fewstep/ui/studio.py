"""Drawing for the page: models that stay loaded, one picture at a time, each with the seconds it took."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fewstep.errors import FewstepError
from fewstep.sampling.generate import DrawingModel
from fewstep.sampling.loaded import let_go
from fewstep.sampling.metadata import picture_texts, settings_of
from fewstep.sampling.pictures import Drawn, save_picture, save_video
from fewstep.sampling.request import Drawing
from fewstep.ui.offers import Offer

LADDER = (1, 2, 4, 8)
"""Numbers of steps that are drawn beside each other."""


@dataclass(frozen=True)
class Asked:
    """Pictures of one model.

    Attributes:
        offer: The model.
        prompt: Of all of them.
        takes: Seed and number of steps of each; None is the model's own number.
        guidance_scale: None is the model's own.
    """

    offer: Offer
    prompt: str
    takes: tuple[tuple[int, int | None], ...]
    guidance_scale: float | None = None


@dataclass(frozen=True)
class Order:
    """What the fields of the page say; an empty number is each model's own.

    Attributes:
        models: Names of offers.
        steps: Of models that draw in few.
        teacher_steps, guidance_scale: Of the others.
        seed: The first one.
        count: Pictures of each model.
    """

    prompt: str
    models: Sequence[str]
    steps: float | None = None
    teacher_steps: float | None = None
    guidance_scale: float | None = None
    seed: float | None = None
    count: float = 1

    def pictures(self, offers: Sequence[Offer]) -> list[Asked]:
        """Pictures of seeds that follow each other."""
        first = int(self.seed or 0)
        return self._asked(
            offers, lambda few: [(seed, self._steps(few)) for seed in range(first, first + int(self.count))]
        )

    def ladder(self, offers: Sequence[Offer]) -> list[Asked]:
        """One seed in more and more steps; behind them, of models that are not drawn in few, their own number."""
        seed = int(self.seed or 0)
        return self._asked(offers, lambda few: [(seed, steps) for steps in (*LADDER, *(() if few else (None,)))])

    def _steps(self, few: bool) -> int | None:
        steps = self.steps if few else self.teacher_steps
        return None if steps is None else int(steps)

    def _asked(self, offers: Sequence[Offer], takes: Callable[[bool], list[tuple[int, int | None]]]) -> list[Asked]:
        return [
            Asked(offer, self.prompt, tuple(takes(offer.few)), None if offer.few else self.guidance_scale)
            for offer in offers
            if offer.name in self.models
        ]


@dataclass(frozen=True)
class Shot:
    """One picture, whole as a file, or a clip.

    Attributes:
        media: ``image/png`` or ``image/gif``.
        seconds: From prompt to pixels.
    """

    content: bytes
    media: str
    seed: int
    steps: int
    guidance_scale: float
    seconds: float


@dataclass
class Row:
    """What a model has drawn so far.

    Attributes:
        expected: How many pictures there will be.
        doing: What happens now; empty when nothing does.
        problem: Why there are no more.
    """

    offer: Offer
    expected: int
    shots: list[Shot]
    doing: str = ""
    problem: str = ""


class _StoppedError(Exception):
    """Somebody does not want the picture any more."""


class Studio:
    """The models of a page, each read when it is first drawn with, and one drawing at a time."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[object, DrawingModel]] = {}
        self._busy = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the drawing that is going on, after the network call that is."""
        self._stopped.set()

    def draw(self, asked: Sequence[Asked]) -> Iterator[list[Row]]:
        """Draw model by model, and tell after each picture what there is. A model's error is told in its row."""
        rows = [Row(one.offer, len(one.takes), []) for one in asked]
        with self._busy:
            self._stopped.clear()
            for one, row in zip(asked, rows, strict=True):
                try:
                    for doing, shot in self._shots(one):
                        row.doing = doing
                        row.shots += [] if shot is None else [shot]
                        yield rows
                except _StoppedError:
                    row.problem = "Stopped."
                except FewstepError as error:
                    row.problem = str(error)
                except torch.OutOfMemoryError:
                    self._loaded.pop(one.offer.name, None)
                    row.problem = "The device has no memory left for this model; choose fewer models."
                row.doing = ""
                if self._stopped.is_set():
                    break
        yield rows

    def _shots(self, asked: Asked) -> Iterator[tuple[str, Shot | None]]:
        """What is being done, and each picture when it is there."""
        offer, stands = asked.offer, asked.offer.stands()
        if self._loaded.get(offer.name, (None,))[0] != stands or offer.name not in self._loaded:
            yield "loading", None
            self._loaded.pop(offer.name, None)
            let_go()
            model = offer.load()
            self._picture(model, _request(asked, *asked.takes[0]), asked.prompt, warm=True)
            self._loaded[offer.name] = stands, model
        model = self._loaded[offer.name][1]
        for number, (seed, steps) in enumerate(asked.takes, 1):
            yield f"drawing {number} of {len(asked.takes)}", None
            request = _request(asked, seed, steps)
            started = time.perf_counter()
            picture = self._picture(model, request, asked.prompt)
            seconds = time.perf_counter() - started
            yield "", _shot(picture, model, request, asked.prompt, seconds)

    def _picture(self, model: DrawingModel, request: Drawing, prompt: str, *, warm: bool = False) -> Drawn:
        """One picture, alone in its batch: as ``fewstep sample --batch 1`` draws it."""

        def advance(pictures: int) -> None:
            if self._stopped.is_set():
                raise _StoppedError

        spec = request.model
        sigmas = model.chosen_sigmas(spec.steps, spec.sigmas)
        drawn: list[Drawn] = model.images(
            [prompt],
            [request.seed],
            sigmas=sigmas[:1] if warm else sigmas,
            guidance_scale=spec.guidance_scale,
            batch=1,
            advance=advance,
        )
        return drawn[0]


def _request(asked: Asked, seed: int, steps: int | None) -> Drawing:
    """The offer's own request with what the page says; noise levels of its own stay where the number agrees."""
    drawing = asked.offer.drawing
    spec = drawing.model
    told: dict[str, object] = {}
    if steps is not None and steps != asked.offer.steps:
        told = {"steps": steps, "sigmas": None}
    if asked.guidance_scale is not None:
        told["guidance_scale"] = asked.guidance_scale
    return drawing.model_copy(update={"seed": seed, "model": spec.model_copy(update=told)})


def _shot(picture: Drawn, model: DrawingModel, request: Drawing, prompt: str, seconds: float) -> Shot:
    """The picture as a file that says how it was drawn."""
    settings = settings_of(request, model)
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(picture, list):
            media, path = "image/gif", Path(folder, "clip.gif")
            save_video(picture, path, frame_rate=model.adapter.frame_rate or 8)
        else:
            media, path = "image/png", Path(folder, "picture.png")
            save_picture(picture, path, texts=picture_texts(settings, prompt, request.seed))
        content = path.read_bytes()
    return Shot(content, media, request.seed, settings["steps"], settings["guidance_scale"], seconds)
