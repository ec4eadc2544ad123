"""What arguments and a command line's words make of a request, and which of them are refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fewstep.backbones.lora_source import LoraSource
from fewstep.errors import ConfigError
from fewstep.sampling.model_spec import ModelSpec
from fewstep.sampling.request import Drawing, drawing_of, parse_lora, parse_sigmas, parse_size


@pytest.mark.parametrize("said", ["768x1344", " 768 × 1344 ", (768, 1344), [768, 1344]])
def test_a_size_is_height_and_width(said: Any) -> None:
    assert parse_size(said) == (768, 1344)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("768", r"size is '768'; write HEIGHTxWIDTH in pixels, such as 768x1344 for a wide picture\."),
        ("768x", "size is '768x'; write HEIGHTxWIDTH"),
        ("-1x4", "size is '-1x4'; write HEIGHTxWIDTH"),
        ((1, 2, 3), r"size is \(1, 2, 3\); write HEIGHTxWIDTH"),
        (768, "size is 768; write HEIGHTxWIDTH"),
        ("0x64", "The height of size is 0; it must be a whole number from 1 to 16384"),
        ("64x99999", "The width of size is 99999; it must be a whole number from 1 to 16384"),
        ((64, 1.5), r"The width of size is 1\.5; it must be a whole number"),
    ],
)
def test_what_is_no_size_is_refused(said: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_size(said)


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-1", "style.safetensors", -1.0),
        ("style.safetensors", "style.safetensors", 1.0),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", 1.0),
        (r"C:\loras\style.safetensors:0.5", r"C:\loras\style.safetensors", 0.5),
        ("C:/loras/style.safetensors:1e-1", "C:/loras/style.safetensors", 0.1),
        ("owner/name:0.7", "owner/name", 0.7),
        ("a:b.safetensors", "a:b.safetensors", 1.0),
        (Path("style.safetensors"), "style.safetensors", 1.0),
    ],
)
def test_a_lora_is_a_file_and_its_scale(text: str | Path, path: str, scale: float) -> None:
    assert parse_lora(text) == LoraSource(path=path, scale=scale)


def test_a_file_whose_name_ends_like_a_scale_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "style:2").touch()
    assert parse_lora(tmp_path / "style:2") == LoraSource(path=str(tmp_path / "style:2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:1e9", r"The scale of the LoRA 'x:1e9' is 1000000000\.0; it must be a number from -1000 to 1000"),
        ("x:nan", "The scale of the LoRA 'x:nan' is nan; it must be a number"),
        (":0.8", "The LoRA ':0.8' names no file; write FILE:SCALE"),
        ("", "The LoRA '' names no file"),
    ],
)
def test_what_is_no_lora_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_lora(text)


@pytest.mark.parametrize("said", ["1.0, 0.9,0.5", [1, 0.9, 0.5]])
def test_sigmas_are_numbers_in_a_row(said: Any) -> None:
    assert parse_sigmas(said) == (1.0, 0.9, 0.5)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("1.0,half", "sigmas is '1.0,half'; write numbers as in 1.0,0.9,0.75,0.5"),
        ("", "sigmas is ''; write numbers"),
        (0.5, "sigmas is 0.5; write numbers"),
        ("1.0,0.5,0", r"The sigmas are \[1.0, 0.5, 0.0\]; they must descend from at most 1 and stay above 0"),
        ("0.5,0.9", "must descend"),
        ("1.1,0.9", "must descend from at most 1"),
        ("nan", "must descend"),
        ([], "must descend"),
        ([1.0] * 1001, "There are 1001 sigmas; 1000 are the most that a picture may have"),
    ],
)
def test_what_is_no_grid_is_refused(said: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sigmas(said)


def test_words_behind_the_model_and_arguments_make_one_request() -> None:
    made = drawing_of("owner/m,frames=9,lora=a,lora_scale=0.5", {"size": "64x32", "lora": ["b:2"], "seed": 7})
    spec = ModelSpec(model="owner/m", frames=9, lora="a", lora_scale=0.5, height=64, width=32)
    assert made == Drawing(model=spec, lora=(LoraSource(path="b", scale=2.0),), seed=7)
    assert [(one.path, one.scale) for one in made.loras] == [("a", 0.5), ("b", 2.0)]


def test_a_folder_with_a_comma_in_its_name_is_meant_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "my,model").mkdir()
    assert drawing_of(tmp_path / "my,model", {}).model == ModelSpec(model=str(tmp_path / "my,model"))


def test_a_request_stays_as_it_is() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        drawing_of("m", {}).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("model", "said", "message"),
    [
        ("m", {"steps": 2, "sigmas": "1,0.5"}, "steps and sigmas are both given; .* so leave steps out"),
        ("m,steps=3", {"sigmas": "1,0.5"}, "There are 2 sigmas but steps=3; leave steps out"),
        ("m,steps=3", {"steps": 4}, "steps is 4, and 'm,steps=3' says 3; say it once"),
        ("m,sampler=stock", {}, "MODEL 'm,sampler=stock' asks for sampler=stock, but pictures are drawn with"),
        ("m,stps=3", {}, "MODEL 'm,stps=3' sets stps to '3': Extra inputs"),
        ("m", {"steps": 0}, "steps is 0; it must be a whole number from 1 to 1000"),
        ("m", {"seed": -1}, "seed is -1; it must be a whole number from 0 to"),
        ("m", {"batch": 0}, "batch is 0; it must be a whole number from 1 to"),
        ("m", {"guidance_scale": float("nan")}, "guidance_scale is nan; it must be a number from 0 to 1000"),
        ("m", {"dtype": "fp64"}, "dtype is 'fp64': input should be 'fp32' or 'bf16'"),
        ("m", {"negative_prompt": "a\0b"}, "The negative prompt has a NUL character"),
        ("m", {"lora": ["x"] * 101}, "lora is .*: tuple should have at most 100 items"),
        (Drawing(model=ModelSpec(model="m")), {"seed": 1}, "seed is given beside a Drawing, which says it already"),
    ],
)
def test_what_makes_no_request_is_refused(model: Any, said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawing_of(model, said)


def test_the_model_beside_has_its_own_steps_and_the_same_size() -> None:
    first = drawing_of("m", {"steps": 4, "size": "64x32", "dtype": "bf16", "seed": 7, "lora": "a"})
    other = first.beside("n,steps=28,width=64")
    assert other.model == ModelSpec(model="n", steps=28, height=64, width=64, dtype="bf16")
    assert (other.seed, other.lora) == (7, ())
