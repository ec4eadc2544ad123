"""Every convertible checkpoint: original names in, a folder out that gives the same scores and needs nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.convert import convert
from fewstep.scores.registry import create_metrics
from tests.scores import tiny_blip, tiny_clip, tiny_qwen
from tests.scores.metrics.test_aesthetic import random_head
from tests.scores.tiny_pictures import scores_of, write_pictures

Settings = dict[str, Any]


def clip(folder: Path) -> Settings:
    tiny_clip.write_clip(folder, safe=False)
    return {"source": str(folder)}


def pickscore(folder: Path) -> Settings:
    settings = clip(folder)
    (folder / "elsewhere").mkdir()
    (folder / "tokenizer.json").rename(folder / "elsewhere" / "tokenizer.json")
    return {**settings, "tokenizer": str(folder / "elsewhere")}


def hpsv2(folder: Path) -> Settings:
    folder.mkdir()
    torch.save({"state_dict": tiny_clip.OpenClip().state_dict()}, folder / "HPS_v2.1_compressed.pt")
    return {"source": str(folder / "HPS_v2.1_compressed.pt"), "tokenizer": str(tiny_clip.TOKENIZER.parent)}


def imagereward(folder: Path) -> Settings:
    tokenizer = tiny_blip.write_tokenizer(folder / "bert")
    torch.save(tiny_blip.OwnImageReward().state_dict(), folder / "ImageReward.pt")
    return {"source": str(folder), "tokenizer": str(tokenizer)}


def aesthetic(folder: Path) -> Settings:
    tiny_clip.write_clip(folder / "clip")
    torch.save(random_head("model."), folder / "aesthetic-model.pth")
    return {"source": str(folder), "clip": str(folder / "clip")}


def hpsv3(folder: Path) -> Settings:
    tiny_qwen.write_hpsv3(folder)
    return {"source": str(folder), "base": str(tiny_qwen.write_base(folder / "base"))}


ORIGINALS: dict[str, Callable[[Path], Settings]] = {
    "clipscore": clip,
    "pickscore": pickscore,
    "hpsv2": hpsv2,
    "imagereward": imagereward,
    "aesthetic": aesthetic,
    "hpsv3": hpsv3,
}


def scores(name: str, settings: Settings, folder: Path) -> list[float]:
    metric = create_metrics([name], {name: settings})[0]
    metric.check([])
    metric.load(torch.device("cpu"))
    return scores_of(metric, write_pictures(folder))


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_converted_folder_alone_gives_the_scores_of_the_original(name: str, tmp_path: Path) -> None:
    settings = ORIGINALS[name](tmp_path / "original")
    expected = scores(name, {**settings, "allow_pickle": True}, tmp_path / "pictures")
    others = {key: value for key, value in settings.items() if key != "source"}
    written = convert(name, settings["source"], tmp_path / "converted", allow_pickle=True, settings=others)
    shutil.rmtree(tmp_path / "original")
    assert scores(name, {"source": str(written)}, tmp_path / "pictures") == expected


def test_the_folder_says_what_it_is_without_naming_a_place_on_this_machine(tmp_path: Path) -> None:
    clip(tmp_path / "original")
    folder = convert("clipscore", str(tmp_path / "original"), tmp_path / "converted", allow_pickle=True)
    text = (folder / "fewstep-metric.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert (record["metric"], record["source"], record["card"]["licence"]) == ("clipscore", "original", "MIT")
    assert str(tmp_path) not in text
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "fewstep-metric.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_converting_keeps_the_precision_of_the_weights(tmp_path: Path) -> None:
    tiny_clip.random_clip().half().save_pretrained(tmp_path / "original")
    shutil.copyfile(tiny_clip.TOKENIZER, tmp_path / "original" / "tokenizer.json")
    folder = convert("clipscore", str(tmp_path / "original"), tmp_path / "converted")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    weights = tiny_clip.random_clip().state_dict()
    bias = weights["vision_model.post_layernorm.bias"]
    weights["vision_model.pre_layrnorm.bias"] = bias
    tiny_clip.write_clip(tmp_path / "original")
    (tmp_path / "original" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "original" / "pytorch_model.bin")
    folder = convert("clipscore", str(tmp_path / "original"), tmp_path / "converted", allow_pickle=True)
    assert torch.equal(load_file(folder / "model.safetensors")["vision_model.pre_layrnorm.bias"], bias)


def test_a_pickle_is_not_converted_until_it_is_allowed(tmp_path: Path) -> None:
    clip(tmp_path / "original")
    with pytest.raises(ConfigError, match="is a pickle"):
        convert("clipscore", str(tmp_path / "original"), tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path: Path) -> None:
    clip(tmp_path / "original")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="taken is not an empty folder"):
        convert("clipscore", str(tmp_path / "original"), tmp_path / "taken", allow_pickle=True)


def test_a_checkpoint_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    save_file({"weight": torch.zeros(1)}, tmp_path / "original" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no HPS v2\.1"):
        convert("hpsv2", str(tmp_path / "original"), tmp_path / "out" / "converted", settings={"tokenizer": _words()})
    assert not (tmp_path / "out").exists()


def _words() -> str:
    return str(tiny_clip.TOKENIZER.parent)


def test_an_unknown_metric_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no metric 'clipscor'; there are: .*clipscore"):
        convert("clipscor", "openai/clip", tmp_path / "converted")


def test_a_metric_without_a_checkpoint_of_its_own_lists_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The metric ocr has no checkpoint that can be converted; .*hpsv2"):
        convert("ocr", "somewhere/else", tmp_path / "converted")


def test_a_setting_that_the_metric_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hpsv2\.tokeniser .*The settings of hpsv2 are: .*tokenizer"):
        convert("hpsv2", "RE-N-Y/hpsv21", tmp_path / "converted", settings={"tokeniser": "x"})
