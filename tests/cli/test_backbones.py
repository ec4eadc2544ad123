"""`fewstep backbones` and `fewstep check`."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fewstep.backbones import create_model_adapter
from fewstep.cli.main import execute
from fewstep.errors import CheckpointError
from fewstep.planning.porting_matrix import MATRIX, PORTED
from fewstep.planning.porting_tables import as_markdown
from tests.backbones import tiny, tiny_sana

Install = Callable[[str, str, Mapping[str, str]], Path]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(sd35=False), tmp_path_factory.mktemp("models") / "teacher")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert execute(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def lines_of(text: str) -> dict[str, str]:
    """What `fewstep check` says, by the first word of each line."""
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("arguments", [(), ("--details",), ("flux",), ("sana-sprint-600m",)])
def test_what_is_printed_fits_the_terminal_and_breaks_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = printed(capsys, "backbones", *arguments)
    assert max(map(len, text.splitlines())) <= width
    monkeypatch.setenv("COLUMNS", "1000")
    assert sorted(text.split()) == sorted(printed(capsys, "backbones", *arguments).split())


def test_the_overview_has_every_kind_and_model_in_the_recommended_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(capsys, "backbones").splitlines()
    assert lines[0].split() == ["kind", "models", "status"]
    assert lines[1].split() == ["sd3", "sd3-medium,", "sd35-medium,", "sd35-large", "runs"]
    words = " ".join(lines).replace(",", "").split()
    assert set(words) >= {row.name for row in MATRIX} | {row.family.split()[0] for row in MATRIX}
    places = [words.index(kind) for kind in dict.fromkeys(row.family for row in PORTED)]
    assert places == sorted(places)
    assert len(lines) <= 32  # one screen


def test_details_are_those_of_the_kind_or_model_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "backbones", "sana")
    assert "sana-600m (kind sana, runs)" in text
    assert "the stock scheduler takes no sigmas" in text
    assert "sd3-medium" not in text
    assert "8 x H100, counted, not measured" in " ".join(text.split())
    assert printed(capsys, "backbones", "Qwen/Qwen-Image") == printed(capsys, "backbones", "qwen-image")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("flux1", "Did you mean flux or"), ("x" * 5000, "xxx..."), ("\x1b[2J", "no kind and no model")],
)
def test_an_unknown_kind_is_told_with_the_nearest_names(
    capsys: pytest.CaptureFixture[str], asked: str, hint: str
) -> None:
    said = printed(capsys, "backbones", asked, code=2)
    assert hint in said
    assert "\x1b" not in said
    assert len(said) < 600


def test_the_json_is_nothing_but_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "backbones", "--json"))
    assert [row["name"] for row in rows] == [row.name for row in MATRIX]


def test_the_tables_of_the_page_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "backbones", "--markdown") == as_markdown()


def test_check_tells_adapter_schedule_and_recipes_of_a_teacher(
    capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    said = lines_of(printed(capsys, "check", str(teacher)))
    assert said["pipeline"] == "StableDiffusion3Pipeline"
    assert said["adapter"] == "sd3 (fewstep.backbones.sd3.SD3Adapter)"
    assert said["size"] == "16 x 16 pixels, latents (4, 8, 8)"
    assert said["schedule"] == "[1, 0.75, 0.5, 0.25] becomes sigma [1, 0.9, 0.75, 0.5]"
    assert said["guidance"] == "the teacher gives a direction: recipes may have ca, or a guided dm"
    assert said["blocks"] == "JointTransformerBlock"
    assert said["lora"].startswith("attn.to_q, attn.to_k, attn.to_v, attn.to_out.0, attn.add_q_proj")
    assert "sd3-medium" in said["recipes"].split(", ")
    assert said["distilled"].startswith("not that its name or its configuration tells")


def test_check_says_what_a_distilled_model_is_and_what_to_use(
    capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    turbo = teacher.rename(teacher.with_name("sd3.5-large-turbo"))
    said = lines_of(printed(capsys, "check", str(turbo)))
    turbo.rename(teacher)
    assert said["adapter"].startswith("sd3 ")
    assert said["distilled"] == (
        "yes: SD3.5-Large-Turbo, already distilled to 4 steps; it cannot be a teacher. "
        "Use stabilityai/stable-diffusion-3.5-large instead; if it only looks like one, set "
        "backbone.allow_distilled=true."
    )


def test_check_knows_a_distilled_repository_by_its_name_when_its_files_cannot_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = lines_of(printed(capsys, "check", "black-forest-labs/FLUX.1-schnell"))
    assert said["files"].startswith("not read: black-forest-labs/FLUX.1-schnell is not a local folder")
    assert said["distilled"].startswith("yes: FLUX.1-schnell, already distilled to 1 to 4 steps; it cannot be")


def test_check_of_an_unknown_repository_that_cannot_be_read_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "somebody/model is not a local folder" in printed(capsys, "check", "somebody/model", code=2)


@pytest.mark.parametrize("guidance_scale", [[], ["--guidance-scale", "1"]])
def test_sample_tells_in_one_sentence_why_a_negative_prompt_has_no_effect(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, guidance_scale: list[str]
) -> None:
    folder = tiny.save(tiny.sd3_pipeline(sd35=False), tmp_path / "student")
    facts = {"role": "student", "backbone": "sd3", "height": 16, "width": 16, "guidance_scale": 1.0}
    (folder / "fewstep.json").write_text(json.dumps(facts))
    capsys.readouterr()  # the progress bar of saving
    asked = ["--prompt", "a cat", "--negative-prompt", "blurred", "--output", str(tmp_path / "cat.png")]
    said = printed(capsys, "sample", str(folder), *asked, *guidance_scale, code=2)
    assert said.startswith(f"fewstep: {folder} is drawn at guidance scale 1, which is off, so a negative prompt would")
    assert not (tmp_path / "cat.png").exists()


def test_check_recognises_a_distilled_model_that_no_adapter_serves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tiny.save(tiny_sana.sana_pipeline(), tmp_path / "renamed")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "SanaSprintPipeline"}))
    said = lines_of(printed(capsys, "check", str(folder)))
    assert said["adapter"] == "none"
    assert said["distilled"].startswith("yes: a SANA-Sprint model")


def test_check_refuses_a_video_pipeline_with_the_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "MochiPipeline"}')
    said = printed(capsys, "check", str(tmp_path), code=2)
    assert "is a MochiPipeline: it makes videos in a way that no backbone does" in said


def test_check_refuses_what_is_no_pipeline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "has no model_index.json" in printed(capsys, "check", str(tmp_path), code=2)


def test_a_deep_check_builds_the_network_without_its_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tiny.save(tiny.sd3_pipeline(sd35=False), tmp_path / "teacher")
    capsys.readouterr()
    said = lines_of(printed(capsys, "check", str(folder), "--deep"))
    assert said["network"].startswith("SD3Transformer2DModel, ")
    assert said["found"].startswith("3 x JointTransformerBlock; ")


def test_a_deep_check_tells_what_an_adapter_names_in_vain(
    capsys: pytest.CaptureFixture[str], teacher: Path, install: Install
) -> None:
    source = (
        "from fewstep.backbones.sd3 import SD3Adapter\n"
        "class Config(SD3Adapter.config_class):\n"
        "    kind: str = 'outside'\n"
        "class Adapter(SD3Adapter):\n"
        "    kind = 'outside'\n"
        "    config_class = Config\n"
        "    pipeline_class = 'OutsidePipeline'\n"
        "    block_classes = ('JointBlock', 'SingleBlock')\n"
    )
    install("outside-sd3", "[fewstep.backbones]\noutside = outside_sd3:Adapter\n", {"outside_sd3.py": source})
    index = json.loads((teacher / "model_index.json").read_text())
    folder = Path(shutil.copytree(teacher, teacher.with_name("outside")))
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "OutsidePipeline"}))
    assert "outside" in lines_of(printed(capsys, "check", str(folder)))["adapter"]
    said = printed(capsys, "check", str(folder), "--deep", code=2)
    assert "block_classes has JointBlock" in said
    assert "block_classes has SingleBlock" in said


def test_check_says_that_a_teacher_gives_no_direction_of_guidance(
    capsys: pytest.CaptureFixture[str], teacher: Path, install: Install
) -> None:
    source = (
        "from fewstep.backbones.sd3 import SD3Adapter\n"
        "class Config(SD3Adapter.config_class):\n"
        "    kind: str = 'guided-already'\n"
        "    def without_guidance(self):\n"
        "        return f'{self.model} was distilled with its guidance'\n"
        "class Adapter(SD3Adapter):\n"
        "    kind = 'guided-already'\n"
        "    config_class = Config\n"
        "    pipeline_class = 'GuidedAlreadyPipeline'\n"
    )
    install("guided", "[fewstep.backbones]\nguided-already = guided_already:Adapter\n", {"guided_already.py": source})
    index = json.loads((teacher / "model_index.json").read_text())
    folder = Path(shutil.copytree(teacher, teacher.with_name("guided")))
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "GuidedAlreadyPipeline"}))
    assert lines_of(printed(capsys, "check", str(folder)))["guidance"] == (
        f"the teacher gives no direction, so recipes go without ca ({folder} was distilled with its guidance)"
    )
    backbone = f"backbone={{kind: guided-already, model: {folder}}}"
    said = printed(capsys, "train", "sd3-medium", backbone, code=2)
    assert f"{folder} was distilled with its guidance, or train without it: terms.ca=null" in said


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_check_recognises_a_network_that_was_saved_with_its_lora(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shard: str
) -> None:
    from peft import LoraConfig

    pipeline = tiny.sd3_pipeline(sd35=False)
    folder = tiny.save(pipeline, tmp_path / "tuned")
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    pipeline.transformer.save_pretrained(folder / "transformer", max_shard_size=shard)
    capsys.readouterr()
    said = printed(capsys, "check", str(folder), code=2)
    assert f"The transformer of {folder} was saved with a LoRA attached to it (12 of its weights, first " in said
    assert "fuse and unload the LoRA before saving" in said
    assert "name the LoRA in backbone.lora" in said
    with pytest.raises(CheckpointError) as loaded:
        create_model_adapter(folder).load_network()
    assert f"fewstep: {loaded.value}" == said.strip()


def test_what_installed_packages_add_is_listed_with_the_package(
    capsys: pytest.CaptureFixture[str], install: Install
) -> None:
    assert "Added" not in printed(capsys, "backbones")
    entries = "[fewstep.backbones]\nmine = gone:Adapter\n[fewstep.terms]\nmine-term = gone:Term\n"
    install("my-package", f"{entries}[fewstep.recipes]\nx = my_recipes\n", {"my_recipes/my-run.yaml": ""})
    listed = printed(capsys, "backbones").splitlines()
    assert listed[-4:] == [
        "Added by installed packages:",
        "  backbone mine: gone:Adapter of my-package 1.0",
        "  loss term mine-term: gone:Term of my-package 1.0",
        "  recipe my-run of my-package",
    ]
    assert printed(capsys, "backbones", "mine") == "backbone mine: gone:Adapter of my-package 1.0\n"


def test_check_lists_the_recipes_of_packages_and_passes_over_those_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], teacher: Path, install: Install
) -> None:
    files = {"my_recipes/mine.yaml": "base: sd3-medium\n", "my_recipes/torn.yaml": "base: [\n"}
    install("my-package", "[fewstep.recipes]\nx = my_recipes\n", files)
    text = printed(capsys, "check", str(teacher))
    assert {"mine", "sd3-medium"} <= set(lines_of(text)["recipes"].split(", "))
    assert "not read   recipe torn of the package my-package is not valid YAML" in text


def test_check_refuses_a_scheduler_that_leaves_no_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.save(tiny.sd3_pipeline(), tmp_path / "teacher")
    place = folder / "scheduler" / "scheduler_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "shift_terminal": 1.0}))
    assert execute(["check", str(folder)]) == 2
    assert "turns the noise levels 1/8 ... 1 into [1.0, 1.0" in capsys.readouterr().err
