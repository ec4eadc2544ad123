"""Every published configuration of every family that is served, from opening it to its exported student."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fewstep.backbones import ModelAdapter, adapter_class, create_model_adapter
from fewstep.backbones.source import open_checkpoint
from fewstep.cli.main import execute
from fewstep.config.recipe import load_recipe
from fewstep.export.export import export
from fewstep.sampling.loaded import TextToImage
from fewstep.training.run import train
from tests.published_twins import PUBLISHED, TWINS, build, raw

SIDE = 64


@pytest.fixture(scope="module", params=sorted(TWINS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(name, tmp_path_factory.mktemp("twin") / name)


def backbone(name: str, folder: Path) -> dict[str, Any]:
    twin = TWINS[name]
    return {"kind": twin.kind, "model": str(folder), "height": SIDE, "width": SIDE, **twin.config}


@pytest.fixture(scope="module")
def adapter(name: str, folder: Path) -> ModelAdapter:
    fields = backbone(name, folder)
    return create_model_adapter(folder, adapter_class(TWINS[name].kind).config_class(**fields))


def test_check_says_which_adapter_serves_it(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"adapter    {TWINS[name].kind} " in printed
    assert "distilled  not that" in printed


def test_a_configuration_is_the_one_of_the_loaded_component(adapter: ModelAdapter, folder: Path) -> None:
    """What diffusers makes of the same file, key by key: every default is in its place."""
    # the pipeline may rewrite the network's, as it does for Stable Diffusion's oldest files
    pipeline = adapter.load_pipeline(**{adapter.network_component: None})
    parts: dict[str, Any] = {**pipeline.components, adapter.network_component: adapter.load_network()}
    for component in (adapter.network_component, "vae", "scheduler"):
        stated = adapter.components[component]
        loaded = {key: value for key, value in parts[component].config.items() if not key.startswith("_")}
        assert {key: stated[key] for key in loaded} == json.loads(json.dumps(loaded))


def test_pictures_are_drawn(adapter: ModelAdapter) -> None:
    vae = adapter.load_vae()
    pipeline = adapter.load_pipeline(**{adapter.network_component: None, "vae": vae})
    loaded = TextToImage(adapter, adapter.load_network(), pipeline)
    (drawn,) = loaded.images(["a cat"], [0], steps=2, guidance_scale=2.0)
    image = drawn[-1] if isinstance(drawn, list) else drawn
    assert image.size == (SIDE, SIDE)
    assert image.getextrema() != ((0, 0),) * 3


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if TWINS[name].repeats else []) for name in sorted(TWINS)],
    indirect=True,
)
def test_two_updates_and_their_student(name: str, folder: Path, tmp_path: Path) -> None:
    guided = adapter_class(TWINS[name].kind).config_class.guided
    recipe = {
        "backbone": backbone(name, folder),
        "prompts": {"kind": "file", "path": "prompts.txt"},
        "schedule": {"kind": "random_length", "min_steps": 1, "max_steps": 2},
        "terms": {"ca": {"scale": 2.0} if guided else None, "dm": {}, "cdm": {}},
        "student": {"lr": 1e-4, "every": 1, "warmup": 1},
        "fake_score": {"lr": 1e-4, "warmup": 1},
        "batch": 1,
        "budget": {"student_updates": 2},
        "precision": {"compute": "fp32"},
        "memory": {"gradient_checkpointing": False},
        "sampling": {"teacher_steps": 2},
        "report": {"trackers": []},
    }
    (tmp_path / "prompts.txt").write_text("a red cat\na blue dog")
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe))
    run = train(load_recipe(tmp_path / "tiny.yaml"), output=tmp_path / "run", console=Console(file=io.StringIO()))
    done = export(run.path, tmp_path / "student").folder
    for file in done.rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"), parse_constant=no_json)
    student = create_model_adapter(done, as_teacher=False)
    assert torch.isfinite(torch.cat([p.flatten() for p in student.load_network().parameters()])).all()
    levels = torch.tensor([1.0, 0.5])
    teacher = create_model_adapter(folder, as_teacher=False)
    # a shift that grows with the picture is that of the student's size, and the folder's own default is another
    sized = teacher.at_size(student.config.height, student.config.width)
    assert torch.equal(student.to_sigma(levels), sized.to_sigma(levels))
    student.load_pipeline()


def no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


UNSERVED = sorted(path.name for path in PUBLISHED.iterdir() if path.is_dir() and path.name not in TWINS)


def stand_in(name: str, folder: Path) -> Path:
    """The published files of a family that is not served, with empty weights."""
    index = raw(name, "model_index.json")
    for component, value in index.items():
        if not (isinstance(value, list) and value[0] is not None and isinstance(value[0], str)):
            continue
        (folder / component).mkdir(parents=True)
        (folder / component / "note.txt").write_text("a twin")
        for file in (PUBLISHED / name / component).glob("*.json"):
            (folder / component / file.name).write_bytes(file.read_bytes())
    (folder / "model_index.json").write_bytes((PUBLISHED / name / "model_index.json").read_bytes())
    return folder


@pytest.mark.parametrize("name", UNSERVED)
@pytest.mark.parametrize("command", ["check", "sample"])
def test_what_is_not_served_is_told_in_one_sentence(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stand_in(name, tmp_path / name)
    more = ["--prompt", "a cat", "--output", str(tmp_path / "out.png")] if command == "sample" else []
    code = execute([command, str(folder), *more])
    printed = capsys.readouterr()
    told = printed.err.strip() or printed.out
    assert "Traceback" not in printed.err
    assert len(printed.err.strip().splitlines()) <= 1
    if command == "check" and "distilled  yes" in printed.out:
        assert code == 0
    else:
        assert code == 2
        pipeline = raw(name, "model_index.json")["_class_name"]
        assert pipeline in told or "has no weights" in told  # a few-step model of a family that is served


def test_every_published_file_opens_as_its_class_has_it() -> None:
    """Trap by trap, what a completed configuration says; files of status D are no evidence and are left out."""
    v15 = open_published("runwayml--stable-diffusion-v1-5")
    v21, base21 = (open_published(f"stabilityai--stable-diffusion-2-1{end}") for end in ("", "-base"))
    assert v15["vae"]["scaling_factor"] == v21["vae"]["scaling_factor"] == 0.18215
    assert (v15["scheduler"]["prediction_type"], v15["scheduler"]["timestep_spacing"]) == ("epsilon", "leading")
    assert (v21["scheduler"]["prediction_type"], base21["scheduler"]["prediction_type"]) == ("v_prediction", "epsilon")
    assert (v21["unet"]["upcast_attention"], base21["unet"]["upcast_attention"]) == (True, False)


def open_published(name: str) -> dict[str, Any]:
    return dict(open_checkpoint(str(PUBLISHED / name)).components)
