"""The stages of scenes: a whole small teacher, in one sitting and in three, and measured."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewstep.embedded.assets import in_place_of_shipped
from fewstep.embedded.scenes.grammar import parse
from fewstep.embedded.scenes.task import Scenes
from fewstep.errors import ConfigError
from fewstep.sampling import sample
from fewstep.sampling.loaded import load_model
from tools.scenes import measuring, networks
from tools.scenes.__main__ import main
from tools.scenes.flow import FlowSettings, share_of_rate
from tools.scenes.measuring import draw_latents, grid
from tools.scenes.shipping import prompts, ship
from tools.scenes.workshop import Settings, Training, Workshop, open_workshop, read_networks, train_teacher, work

TINY = Settings(
    pictures=40,
    detector=Training(3, 8, 1e-3),
    autoencoder=Training(6, 4, 1e-3),
    flow=FlowSettings(num_steps=6, batch=4, warmup_steps=2, save_every=2, half=False, compiled=False),
)


@pytest.fixture(scope="module", autouse=True)
def small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "LAYERS", 1)
        patch.setattr(measuring, "GUIDANCES", (1.0, 2.0))
        patch.setattr(measuring, "SHIFTS", (1.0,))
        patch.setattr(measuring, "STEPS", 5)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = open_workshop(tmp_path_factory.mktemp("scenes"), TINY, lambda line: None)
    assert work(shop)
    return shop


def test_a_training_in_many_sittings_ends_as_one_in_a_single_one(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "latents.safetensors").symlink_to(shop.result("latents.safetensors"))
    again = dataclasses.replace(shop, folder=tmp_path)
    steps = []
    while not train_teacher(again, 0.0001):
        steps.append(torch.load(tmp_path / "flow.state", weights_only=True)["step"])
    assert len(steps) >= 2 and 0 < steps[0] < steps[1] < TINY.flow.num_steps
    whole, cut = (load_file(folder / "networks.safetensors") for folder in (shop.folder, tmp_path))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_what_is_there_is_not_made_again_and_other_settings_are_refused(shop: Workshop) -> None:
    told: list[str] = []
    assert work(dataclasses.replace(shop, notify=told.append))
    assert told == [f"{name}: already there" for name in ("vae", "detector.safetensors", "latents.safetensors")]
    with pytest.raises(ConfigError, match=r"begun with other settings"):
        open_workshop(shop.folder, dataclasses.replace(TINY, seed=1))


def test_the_teacher_is_measured(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--output", str(shop.folder), "--prompts", "2"], settings=TINY) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"real", "50 steps", "4 steps, most right", "4 steps, nearest"}
    assert found["50 steps"]["guidance"] == 2.0
    assert found["real"]["overall"] == 0.0  # three steps teach a detector nothing


def test_a_folder_without_a_teacher_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("measure", "ship", "ship"):
        assert main([command, "--output", str(tmp_path)], settings=TINY) == 2
        told = capsys.readouterr().err
        assert f"{tmp_path} holds no teacher. Train one: python -m tools.scenes train --output {tmp_path}" in told
    assert main(["train", "--output", str(tmp_path)], settings=dataclasses.replace(TINY, seed=3)) == 2
    assert "begun with other settings" in capsys.readouterr().err


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    settings = FlowSettings(num_steps=100, warmup_steps=10)
    assert [round(share_of_rate(step, settings), 3) for step in (0, 9, 50, 80, 90, 100)] == [0.1, 1, 1, 1, 0.5, 0]


def test_grids_and_prompts_of_the_protocol() -> None:
    assert grid(4) == [1.0, 0.75, 0.5, 0.25]
    assert grid(2, 3.0) == [1.0, 0.75]
    chosen = prompts(3, seed=0)
    assert len(chosen) == 15 and not any(scene.held_out for scene in chosen)
    assert [parse(scene.sentence()) for scene in chosen] == list(chosen)


def test_what_ships_is_packed_with_its_licences(shop: Workshop) -> None:
    assert main(["ship", "--output", str(shop.folder)], settings=TINY) == 0
    folder = shop.folder / "assets"
    told = json.loads((folder / "manifest.json").read_text())
    assert {"LICENSES.md", "detector.safetensors", "prompts.json", "reference.safetensors"} <= told.keys()
    assert "Microsoft" in (folder / "LICENSES.md").read_text()
    with in_place_of_shipped("scenes", folder):
        assert Scenes().load_reference().shape == (2_000, 128)
        (drawn,) = sample("fewstep:scenes", Scenes.example, steps=2)
    assert drawn.size == (48, 48)


def test_the_pipeline_that_ships_draws_what_the_networks_draw(shop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "assets"
    ship(shop, folder, per_category=1)
    model = load_model(str(folder / "teacher"), "cpu")
    told, sigmas = ["two red apples to the left of a cat, on white", "a dog"], [1.0, 0.5]
    noise = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(3))
    latents = model.latents(told, [0, 0], sigmas=torch.tensor(sigmas), guidance_scale=2.0, batch=2, noise=noise)
    own = draw_latents(read_networks(shop), told, sigmas, guidance=2.0, noise=noise)
    torch.testing.assert_close(latents, own, rtol=0.02, atol=0.02)  # it ships in half precision
