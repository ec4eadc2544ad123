"""The one place that opens a picture file: whatever somebody brings is RGB pixels or a reason why not.

A clip is its frames, each a picture file: nothing decodes a film, and no frame waits in memory for another.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fewstep.bounds import Frames, most
from fewstep.files import UnreadableError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What is decoded, whatever a file is called; Pillow would also hand files of some formats to other programs."""
MAX_PIXELS = 8192 * 8192
"""Of one picture: decoded and converted, half a gigabyte."""
MAX_FILE_BYTES = 2**30
"""Of the file of one: twice what so many pixels take that are not compressed at all."""
MAX_RATIO = 64
"""The longer side by the shorter: networks that scale the shorter side up make the longer one larger in proportion."""
_BACKGROUND = (255, 255, 255)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder and its subfolders, by name."""
    # a folder that cannot be read, or that goes away meanwhile, has none
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and os.path.isfile(path))


def clips_in(folder: Path) -> list[list[Path]]:
    """The clips of a folder: each folder below it with pictures is one, its frames in the order of their numbers.

    Raises:
        UnreadableError: They have too many frames, or are of several lengths.
    """
    found: dict[Path, list[Path]] = {}
    for path in pictures_in(folder):
        found.setdefault(path.parent, []).append(path)
    for place, frames in found.items():
        if len(frames) > most(Frames):
            raise UnreadableError(f"the clip {place} has {len(frames)} frames, more than {most(Frames)}")
    first, *others = found or [folder]
    for place in others:
        if len(found[place]) != len(found[first]):
            told = f"the clip {first} has {len(found[first])} frames and {place} has {len(found[place])}"
            raise UnreadableError(f"{told}; a prompt's score is the mean over its frames, so cut them to one length")
    return [sorted(frames, key=by_number) for frames in found.values()]


def by_number(path: Path) -> list[int | str]:
    """Orders names by the numbers in them, with or without zeros in front."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", path.name))]


def frame_paths(path: Path, frames: int | None) -> tuple[Path, ...]:
    """Where something drawn lies: one picture at ``path``, or a clip of so many frames in files named after it."""
    if frames is None:
        return (path,)
    return tuple(path.with_name(f"{path.stem}.frame{number:04d}{path.suffix}") for number in range(frames))


def three_frames(count: int) -> tuple[int, int, int]:
    """The first, the middle and the last frame of a clip, which are shown of it."""
    return 0, count // 2, count - 1


def read_picture(path: Path) -> Image.Image:
    """Read a picture as 8-bit RGB.

    Transparent parts show white, 16-bit levels are divided by 256 as Pillow does it for colours, and CMYK is converted;
    an orientation in the metadata is ignored, as the metrics' originals do.

    Raises:
        UnreadableError: It is missing, is no picture, is damaged, too large, too long, or an animation.
    """
    if not path.is_file():
        raise UnreadableError("it is not a file" if path.exists() else "it is missing")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise UnreadableError(f"it holds {size} bytes, more than any picture ({MAX_FILE_BYTES} at most)")
    try:
        # Pillow reports what it makes of odd files as warnings, of large ones too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as opened:
                _check(opened)
                opened.load()
                return _rgb(opened)
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        is_empty = path.stat().st_size == 0
        kinds = f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"
        raise UnreadableError(
            "it is empty" if is_empty else f"it is no {kinds}, or damaged at its beginning"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"it has more than {MAX_PIXELS} pixels") from error
    except Exception as error:
        # a decoder raises whatever the bytes lead it to; only an error of the disk has a number
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadableError(f"it cannot be read: {error.strerror}") from error
        raise UnreadableError(f"it is damaged ({str(error) or type(error).__name__})") from error


def is_whole_png(path: Path) -> bool:
    """Whether a file begins and ends as a PNG does; says nothing of what lies between."""
    try:
        with path.open("rb") as file:
            begins = file.read(8) == b"\x89PNG\r\n\x1a\n"
            file.seek(-12, 2)
            return begins and file.read() == b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
    except OSError:
        return False


def _check(opened: Image.Image) -> None:
    """What the header tells, before anything is decoded."""
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise UnreadableError(f"it has {width} x {height} pixels, more than {MAX_PIXELS}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UnreadableError(f"it has {width} x {height} pixels; one side is more than {MAX_RATIO} times the other")
    # a JPEG with a preview inside counts as several pictures, of which the first is the picture
    if opened.format in ("PNG", "WEBP") and getattr(opened, "n_frames", 1) > 1:
        raise UnreadableError(f"it is an animation of {opened.n_frames} pictures")  # type: ignore[attr-defined]


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # grey of 16 bits; Pillow's own conversion cuts it off at 255
        grey = np.asarray(image, dtype=np.uint32) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("RGB")
