"""Pictures on disk: names, atomic writing, and errors before the work instead of after it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from fewstep.errors import ConfigError
from fewstep.files import whole_file


def to_pil(pixels: UInt8[Tensor, "n 3 h w"]) -> list[Image.Image]:
    """8-bit pictures as PIL images."""
    return [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pixels]


def picture_paths(output: str | Path, count: int) -> list[Path]:
    """Where ``count`` pictures go: ``output`` itself for one, numbered files beside it for several."""
    path = Path(output)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"The output {output} must be a .png file; for several prompts the files are numbered.")
    if path.is_dir():
        raise ConfigError(f"The output {output} is a folder; give the name of a .png file inside it.")
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{index:04d}{path.suffix}") for index in range(count)]


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


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG so that the file is either the old one or the whole new one.

    Raises:
        ConfigError: The disk is full or the folder may not be written.
    """
    try:
        with whole_file(path, shared=True) as unfinished:
            image.save(unfinished, format="PNG")
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror or error}. Choose another output.") from error
