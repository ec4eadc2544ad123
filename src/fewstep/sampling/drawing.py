"""Requests carried out: prompts become pictures on disk, one sheet, two models side by side, or one line at a time."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewstep.backbones.lora_source import LoraSource
from fewstep.devices import DTYPES, require_device
from fewstep.errors import ConfigError, shown
from fewstep.prompts.lines import decoded
from fewstep.prompts.text import require_prompt, require_prompts
from fewstep.sampling.generate import DrawingModel, require_use_of_negative_prompt
from fewstep.sampling.loaded import let_go, load_in_turn, load_model, open_adapter
from fewstep.sampling.metadata import Settings, model_title, picture_texts, settings_of, sheet_texts
from fewstep.sampling.pictures import (
    Drawn,
    numbered_path,
    picture_paths,
    require_medium,
    require_writable,
    save_picture,
    save_video,
)
from fewstep.sampling.request import Drawing, drawing_of
from fewstep.sampling.sheets import Column, comparison_sheet, grid_sheet, require_fits

Progress = Callable[[str, int, int], None]
"""Told while pictures are drawn: the model's name, steps of pictures that are done, and how many there are."""


@dataclass(frozen=True)
class _Result:
    """What a model drew; ``seconds`` per picture where they were asked for."""

    settings: Settings
    pictures: list[Drawn]
    frame_rate: int | None
    seconds: float | None


def sample(
    model: str | Path | Drawing,
    prompts: str | Sequence[str],
    *,
    steps: int | None = None,
    sigmas: Sequence[float] | str | None = None,
    seed: int | None = None,
    guidance_scale: float | None = None,
    negative_prompt: str | None = None,
    size: tuple[int, int] | str | None = None,
    lora: str | Path | LoraSource | Sequence[str | Path | LoraSource] | None = None,
    dtype: str | None = None,
    batch: int | None = None,
    device: torch.device | str | None = None,
    offload: bool | None = None,
    output: str | Path | None = None,
    grid: bool = False,
    compare: str | None = None,
    progress: Progress | None = None,
) -> list[Any]:
    """Draw one picture or video per prompt with an exported student, a teacher or any supported diffusers folder.

    Args:
        model: A folder, a Hugging Face repository id, or ``fewstep:digits``, with choices behind it as ``fewstep
            evaluate`` takes them (``MODEL,steps=4,frames=9``); or a whole :class:`Drawing` in place of all that
            follows down to ``offload``.
        steps: Network calls per picture; None is the model's own number, and a student's uses exactly the grid it was
            trained for.
        sigmas: In place of steps: noise levels as the network sees them, descending from at most 1, without a final 0.
        seed: Names the noise together with the prompt: the same prompt and seed give the same picture in any batch, bit
            for bit with ``batch=1`` and else up to the rounding of sums; None is 0.
        guidance_scale: 1 is off; None is the model's own.
        negative_prompt: What every picture is guided away from.
        size: Height and width in pixels, as a pair or as ``768x1344``; None is the model's own.
        lora: Files, each alone or as ``FILE:SCALE``, merged in this order.
        dtype: Of network and text encoders, ``fp32`` or ``bf16``; None is ``fp32``.
        batch: Pictures per network call; None is 16.
        device: Of torch; None is the fastest one.
        offload: Load text encoders, network and VAE one after the other, each let go before the next.
        output: A ``.png`` file to write, or of videos a ``.gif`` or ``.mp4``; with several prompts, ``name-0000.png``
            and so on beside it. A PNG says how it was drawn in its text chunks.
        grid: Write one sheet of all pictures instead, a ``.png``.
        compare: Another model, as ``model``: the same prompts and seed, both side by side on one sheet, with seconds
            per picture.
        progress: Told after each network call.

    Returns:
        The pictures in the order of the prompts, PIL images; of a model of videos, the frames of each. With
        ``compare``, the other model's behind them.

    Raises:
        ConfigError: The model cannot be opened, there is no prompt, a value cannot be used, a negative prompt would
            change nothing, or ``output`` cannot be written.
        CheckpointError: A part of the model gives numbers that are not finite; no picture is written.
    """
    said = {
        "steps": steps,
        "sigmas": sigmas,
        "seed": seed,
        "guidance_scale": guidance_scale,
        "negative_prompt": negative_prompt,
        "size": size,
        "lora": lora,
        "dtype": dtype,
        "batch": batch,
        "device": None if device is None else str(device),
        "offload": offload,
    }
    texts = _texts(prompts)
    first = drawing_of(model, {name: value for name, value in said.items() if value is not None})
    drawings = [first] if compare is None else [first, first.beside(compare)]
    paths = _places(output, len(texts), grid=grid, compared=compare is not None)
    require_writable(paths)
    for drawing in drawings:
        _require_drawable(drawing, paths, count=len(texts), grid=grid, compared=compare is not None)
    results = []
    for drawing in drawings:
        results.append(_draw(drawing, texts, timed=compare is not None, progress=progress))
        let_go()
    _write(results, drawings, texts, paths, grid=grid)
    return [picture for result in results for picture in result.pictures]


def sample_lines(
    drawing: Drawing,
    lines: Iterable[bytes],
    output: str | Path,
    *,
    drawn: Callable[[Path, str], None],
    refused: Callable[[ConfigError], None],
) -> None:
    """Draw each line as it comes with a model that is loaded once, and go on behind the pictures that are there.

    Args:
        lines: As they are read, with their ends; blank ones are passed over.
        output: Names the files: ``name-0000.png`` and so on; none that is there is written over.
        drawn: Told of each file when it is whole, with its prompt.
        refused: Told why a line is no prompt; the next one is drawn.

    Raises:
        ConfigError: The model cannot be drawn with as asked, or a file cannot be written.
        CheckpointError: A part of the model gives numbers that are not finite.
    """
    if drawing.offload:
        raise ConfigError("--stdin keeps the model in memory and --offload does not; leave one of them out.")
    name = Path(output)
    _, *paths = picture_paths(name, 2)
    require_writable(paths)
    _require_drawable(drawing, paths, count=1, grid=False, compared=False)
    model = load(drawing)
    settings = settings_of(drawing, model)
    numbers = itertools.count()
    for number, raw in enumerate(lines, 1):
        try:
            text = require_prompt(decoded(raw, f"Line {number}").rstrip("\r\n"), place=f"Line {number}")
        except ConfigError as error:
            refused(error)
            continue
        if not text.strip():
            continue
        (picture,) = _pictures(model, drawing, [text])
        path = next(path for path in (numbered_path(name, index) for index in numbers) if not path.exists())
        _save(picture, path, model.adapter.frame_rate, picture_texts(settings, text, drawing.seed))
        drawn(path, text)


def _texts(prompts: str | Sequence[str]) -> list[str]:
    if not isinstance(prompts, str | Sequence):
        raise ConfigError(f"The prompts are {shown(prompts)}; give a text or a list of texts.")
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise ConfigError("There is no prompt to draw; give at least one.")
    return require_prompts(texts)


def _places(output: str | Path | None, count: int, *, grid: bool, compared: bool) -> list[Path]:
    if grid and compared:
        raise ConfigError("compare makes one sheet of its own, so grid has nothing to do; leave one of them out.")
    sheet = grid or compared
    if output is None:
        if sheet:
            raise ConfigError("A sheet is written to a file; name it with output.")
        return []
    paths = picture_paths(output, 1 if sheet else count)
    if sheet and paths[0].suffix.lower() != ".png":
        raise ConfigError(f"A sheet is a .png file, and the output is {output}; give another name.")
    return paths


def _require_drawable(drawing: Drawing, paths: Sequence[Path], *, count: int, grid: bool, compared: bool) -> None:
    """Tell what is wrong with a request before a weight is loaded."""
    spec = drawing.model
    require_device(drawing.device)
    adapter = open_adapter(spec.model, **_opening(drawing))
    if drawing.negative_prompt is not None:  # what the model's own scale is shows afterwards
        require_use_of_negative_prompt(adapter, spec.guidance_scale)
    if spec.sigmas is not None and spec.sigmas[0] > adapter.sigma_max:
        raise ConfigError(
            f"The sigmas begin at {spec.sigmas[0]:g}, but {spec.model} was trained up to {adapter.sigma_max:.6g} only; "
            "begin there or below."
        )
    config = adapter.config
    if grid or compared:
        require_fits(count, height=config.height, width=config.width, frames=adapter.frames, compared=compared)
    else:
        require_medium(paths, model=spec.model, frame_rate=adapter.frame_rate)


def _opening(drawing: Drawing) -> dict[str, Any]:
    spec = drawing.model
    return {"lora": drawing.loras, "height": spec.height, "width": spec.width, "frames": spec.frames}


def load(drawing: Drawing) -> DrawingModel:
    """Open the model of a request; with ``offload``, its weights are read when they are needed and not here."""
    opened = load_in_turn if drawing.offload else load_model
    spec = drawing.model
    return opened(spec.model, drawing.device, dtype=DTYPES[spec.dtype], **_opening(drawing))


def _draw(drawing: Drawing, texts: Sequence[str], *, timed: bool, progress: Progress | None) -> _Result:
    """Load a model and draw; nothing of it is held any more when this returns."""
    model = load(drawing)
    settings = settings_of(drawing, model)
    if timed and not drawing.offload:  # what is read for every call does not get warm
        warm = drawing.model.model_copy(update={"sigmas": (settings["sigmas"][0],)})
        _pictures(model, drawing.model_copy(update={"model": warm}), texts[: drawing.batch])
    started = time.perf_counter()
    pictures = _pictures(model, drawing, texts, steps=settings["steps"], progress=progress)
    seconds = (time.perf_counter() - started) / len(texts)
    return _Result(settings, pictures, model.adapter.frame_rate, seconds if timed else None)


def _pictures(
    model: DrawingModel,
    drawing: Drawing,
    texts: Sequence[str],
    *,
    steps: int = 0,
    progress: Progress | None = None,
) -> list[Drawn]:
    """``steps`` of each picture is for ``progress`` only."""
    spec, done = drawing.model, 0
    name, total = _name(drawing), steps * len(texts)

    def advance(pictures: int) -> None:
        nonlocal done
        done += pictures
        if progress is not None:
            progress(name, done, total)

    return model.images(
        texts,
        [drawing.seed] * len(texts),
        steps=spec.steps,
        sigmas=spec.sigmas,
        guidance_scale=spec.guidance_scale,
        negative_prompt=drawing.negative_prompt,
        batch=drawing.batch,
        advance=advance,
    )


def _name(drawing: Drawing) -> str:
    return drawing.model.name or model_title(drawing.model.model)


def _write(
    results: Sequence[_Result], drawings: Sequence[Drawing], texts: Sequence[str], paths: Sequence[Path], *, grid: bool
) -> None:
    seed, settings = drawings[0].seed, [result.settings for result in results]
    if len(results) > 1:
        columns = [
            Column(_name(drawing), _told(result, drawing), result.pictures)
            for drawing, result in zip(drawings, results, strict=True)
        ]
        save_picture(comparison_sheet(columns, texts), paths[0], texts=sheet_texts(settings, texts, seed))
    elif grid:
        save_picture(grid_sheet(results[0].pictures), paths[0], texts=sheet_texts(settings, texts, seed))
    elif paths:
        for path, picture, text in zip(paths, results[0].pictures, texts, strict=True):
            _save(picture, path, results[0].frame_rate, picture_texts(settings[0], text, seed))


def _told(result: _Result, drawing: Drawing) -> list[str]:
    steps, scale = result.settings["steps"], result.settings["guidance_scale"]
    loading = " with loading" if drawing.offload else ""
    return [
        f"{steps} step{'s' * (steps != 1)}, guidance scale {scale:g}",
        f"{result.seconds:.3g} s per picture{loading}",
    ]


def _save(picture: Drawn, path: Path, frame_rate: int | None, texts: Mapping[str, str]) -> None:
    if isinstance(picture, list):
        assert frame_rate is not None
        save_video(picture, path, frame_rate=frame_rate)
    else:
        save_picture(picture, path, texts=texts)
