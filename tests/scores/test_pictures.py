"""Picture files as people have them: RGB pixels, or one sentence that says why not."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewstep.errors import CheckpointError
from fewstep.evaluation.report_pictures import tile
from fewstep.files import UnreadableError
from fewstep.scores.metric import MetricError, Picture, PromptItem
from fewstep.scores.pictures import MAX_FILE_BYTES, MAX_PIXELS, MAX_RATIO, is_whole_png, pictures_in, read_picture
from fewstep.scores.registry import create_metrics

COLOURS = np.array([[[200, 10, 30], [0, 255, 90]], [[1, 2, 3], [77, 77, 77]]], dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> Image.Image:
    return Image.fromarray(np.arange(48 * 48 * 3, dtype=np.uint32).reshape(48, 48, 3).astype(np.uint8))


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8) -> bytes:
    """A PNG whose header says anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(parts)


def animated(kind: str) -> bytes:
    return encoded(picture(), kind, save_all=True, append_images=[picture().rotate(90)])


def transparent_palette() -> bytes:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    image.putpalette([10, 20, 30, 200, 100, 0])
    return encoded(image, "PNG", transparency=bytes([255, 0]))


GOOD: dict[str, tuple[bytes, list[list[list[int]]]]] = {
    "rgb": (encoded(Image.fromarray(COLOURS), "PNG"), COLOURS.tolist()),
    "a bitmap called .png": (encoded(Image.fromarray(COLOURS), "BMP"), COLOURS.tolist()),
    "lossless webp": (encoded(Image.fromarray(COLOURS), "WEBP", lossless=True), COLOURS.tolist()),
    "grey": (encoded(Image.fromarray(np.array([[7, 250]], dtype=np.uint8)), "PNG"), [[[7] * 3, [250] * 3]]),
    "one bit": (encoded(Image.fromarray(np.array([[True, False]])), "PNG"), [[[255] * 3, [0] * 3]]),
    # 1000 of 65535 is 3.9 of 255; cut off at 255 it would be white
    "grey of 16 bits": (
        encoded(Image.fromarray(np.array([[1000, 65535]], dtype=np.uint16)), "PNG"),
        [[[3] * 3, [255] * 3]],
    ),
    "opaque alpha": (encoded(Image.fromarray(COLOURS).convert("RGBA"), "PNG"), COLOURS.tolist()),
    "hidden colours": (encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "PNG"), [[[255] * 3]]),
    "grey with alpha": (encoded(Image.new("LA", (1, 1), (9, 0)), "PNG"), [[[255] * 3]]),
    "a palette with transparency": (transparent_palette(), [[[10, 20, 30], [255] * 3]]),
}

BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is empty"),
    "a text": (b"not a picture", "it is no PNG, JPEG, WEBP or BMP"),
    "a gif": (encoded(picture(), "GIF"), "it is no PNG, JPEG, WEBP or BMP"),
    "a drawing that Pillow would run Ghostscript on": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "it is no",
    ),
    "half a png": (encoded(picture(), "PNG")[:200], "it is damaged"),
    "a png without its end": (encoded(picture(), "PNG")[:-30], "it is damaged"),
    "half a jpeg": (encoded(picture(), "JPEG")[:900], "it is damaged"),
    "half a webp": (encoded(picture(), "WEBP")[:300], "it is"),
    "only a signature": (b"\x89PNG\r\n\x1a\n", "it is no PNG"),
    "no pixels": (png(8, 8), "it is damaged"),
    "pixels that are no stream": (png(8, 8, (b"IDAT", b"abc")), "it is damaged"),
    "no width": (png(0, 8, (b"IDAT", b"")), "it is"),
    "an unknown depth": (png(8, 8, depth=7), "it is"),
    "a bomb": (png(50_000, 50_000), "it has .*more than"),
    "a bomb that Pillow only warns of": (png(10_000, 9_000), f"it has 10000 x 9000 pixels, more than {MAX_PIXELS}"),
    "a thread": (png(MAX_RATIO + 1, 1), f"one side is more than {MAX_RATIO} times the other"),
    "an animated png": (animated("PNG"), "it is an animation of 2 pictures"),
    "an animated webp": (animated("WEBP"), "it is an animation of 2 pictures"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_picture_of_any_usual_form_is_read_as_rgb(tmp_path: Path, kind: str) -> None:
    content, pixels = GOOD[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_picture(path)
    assert image.mode == "RGB"
    assert np.asarray(image).tolist() == pixels


def test_a_cmyk_jpeg_under_a_wrong_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = np.asarray(read_picture(path), dtype=int).reshape(-1, 3).mean(axis=0)
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_usable_picture_says_why(tmp_path: Path, kind: str) -> None:
    content, reason = BAD[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableError, match=reason):
            read_picture(path)


@pytest.mark.parametrize(("make", "reason"), [(Path.mkdir, "it is not a file"), (lambda path: None, "it is missing")])
def test_what_is_no_file_says_so(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(UnreadableError, match=reason):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_any_damage_is_a_reason_and_no_other_error(tmp_path: Path, kind: str) -> None:
    whole = encoded(picture(), kind)
    chance = np.random.default_rng(0)
    path = tmp_path / "a.png"
    for _ in range(60):
        damaged = bytearray(whole)
        for place in chance.integers(0, min(len(whole), 80), size=3):
            damaged[place] = chance.integers(0, 256)
        path.write_bytes(damaged[: chance.integers(1, len(damaged) + 1)])
        with contextlib.suppress(UnreadableError):
            assert read_picture(path).mode == "RGB"


def test_a_metric_and_the_report_name_the_picture_that_they_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(BAD["pixels that are no stream"][0])
    (metric,) = create_metrics(["fid"], {"fid": {"extractor": "digits"}})
    with pytest.raises(MetricError, match=r"fid cannot score .*a\.png .*cannot be read as a picture: it is damaged"):
        metric.examine([Picture(path, PromptItem("p1", "a dog"), seed=0)])
    with pytest.raises(CheckpointError, match=r"The report cannot show .*a\.png: it is damaged.*Remove the file"):
        tile([path], "student")


@pytest.mark.parametrize(("end", "whole"), [(None, True), (-1, False), (40, False), (0, False)])
def test_a_png_is_whole_when_it_has_its_beginning_and_its_end(tmp_path: Path, end: int | None, whole: bool) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(), "PNG")[:end])
    assert is_whole_png(tmp_path / "a.png") is whole


def test_a_folder_that_goes_away_meanwhile_has_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("there", "gone"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    scandir = os.scandir

    def volatile(path: str) -> Any:
        if path.endswith("gone"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", volatile)
    assert pictures_in(tmp_path) == [tmp_path / "there" / "a.png"]


def test_a_file_larger_than_any_picture_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    with path.open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UnreadableError, match=f"it holds {MAX_FILE_BYTES + 1} bytes, more than any picture"):
        read_picture(path)
