"""Pictures and videos on disk: names, atomic writing, and errors before the work instead of after it."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.files import whole_file

_PICTURES, _VIDEOS = (".png",), (".gif", ".mp4")
_MP4_WRITERS = ("imageio_ffmpeg", "cv2")


Drawn = Image.Image | list[Image.Image]
"""A picture, or the frames of a clip."""


def to_pil(pixels: UInt8[Tensor, "n 3 *size"]) -> list[Any]:
    """8-bit pictures (n, 3, h, w) as PIL images; of videos (n, 3, f, h, w), each as the list of its frames."""
    if pixels.ndim > 4:
        return [to_pil(video.transpose(0, 1)) for video in pixels]
    return [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pixels]


def picture_paths(output: str | Path, count: int) -> list[Path]:
    """Where ``count`` pictures or videos go: ``output`` itself for one, numbered files beside it for several."""
    path = Path(output)
    if path.suffix.lower() not in (*_PICTURES, *_VIDEOS):
        raise ConfigError(
            f"The output {output} must be a .png file, or of a video a .gif or .mp4; for several prompts the files are "
            "numbered."
        )
    if path.is_dir():
        raise ConfigError(f"The output {output} is a folder; give the name of a {path.suffix} file inside it.")
    if count == 1:
        return [path]
    return [numbered_path(path, index) for index in range(count)]


def numbered_path(path: Path, index: int) -> Path:
    """``name-0003.png`` beside ``name.png``."""
    return path.with_name(f"{path.stem}-{index:04d}{path.suffix}")


def require_medium(paths: Sequence[Path], *, model: str, frame_rate: int | None) -> None:
    """Refuse files that cannot hold what a model makes, before it is drawn.

    Args:
        frame_rate: Of the model's videos; None where it makes pictures.

    Raises:
        ConfigError: A picture for a video or the other way round, or no installed package writes MP4.
    """
    made, kinds = ("pictures", _PICTURES) if frame_rate is None else ("videos", _VIDEOS)
    for path in paths[:1]:
        suffix = path.suffix.lower()
        if suffix not in kinds:
            raise ConfigError(f"{model} makes {made}, and the output is {path}; give a {' or '.join(kinds)} file.")
        if suffix == ".mp4" and not any(map(find_spec, _MP4_WRITERS)):
            raise ConfigError(
                f"The output {path} needs a package that writes MP4; install one with: pip install imageio-ffmpeg, or "
                "give a .gif file."
            )


def require_writable(paths: Sequence[Path]) -> None:
    """Make the folders of ``paths`` and prove that files can be made there, before the work is done.

    Raises:
        ConfigError: A folder cannot be made or written.
    """
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"Cannot write pictures into {folder}: {error.strerror}. Choose another output."
            ) from error


def save_video(frames: Sequence[Image.Image], path: Path, *, frame_rate: int) -> None:
    """Write a GIF or an MP4, whole or not at all; a GIF counts time in hundredths of a second.

    Raises:
        ConfigError: The disk is full or the folder may not be written.
    """
    try:
        with whole_file(path, shared=True) as unfinished:
            if path.suffix.lower() == ".gif":
                more = {"save_all": True, "append_images": list(frames[1:]), "loop": 0}
                frames[0].save(unfinished, format="GIF", duration=1000 / frame_rate, **more)
            else:
                _save_mp4(frames, unfinished, frame_rate)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror or error}. Choose another output.") from error


def _save_mp4(frames: Sequence[Image.Image], path: Path, frame_rate: int) -> None:
    width, height = frames[0].size
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        named = Path(folder) / "video.mp4"  # the writers ask the name what to write
        if find_spec("imageio_ffmpeg"):
            writer = import_module("imageio_ffmpeg").write_frames(str(named), (width, height), fps=frame_rate)
            writer.send(None)
            for frame in frames:
                writer.send(frame.tobytes())
            writer.close()
        else:
            cv2 = import_module("cv2")
            writer = cv2.VideoWriter(str(named), cv2.VideoWriter_fourcc(*"mp4v"), frame_rate, (width, height))
            for frame in frames:
                writer.write(np.asarray(frame)[:, :, ::-1])
            writer.release()
        named.replace(path)


def save_picture(image: Image.Image, path: Path, *, texts: Mapping[str, str] | None = None) -> None:
    """Write a PNG so that the file is either the old one or the whole new one.

    Args:
        texts: Chunks of text to put into it, by key.

    Raises:
        ConfigError: The disk is full or the folder may not be written.
    """
    chunks = PngInfo()
    for key, text in (texts or {}).items():
        chunks.add_text(key, text)  # Latin-1, or UTF-8 in a chunk of its own kind
    try:
        with whole_file(path, shared=True) as unfinished:
            image.save(unfinished, format="PNG", pnginfo=chunks)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror or error}. Choose another output.") from error
