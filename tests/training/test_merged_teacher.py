"""A run whose teacher is a checkpoint with a LoRA merged into it."""

from pathlib import Path

import pytest
import torch

from fewstep.backbones import create_model_adapter
from fewstep.config.recipe import Recipe
from fewstep.errors import ConfigError
from fewstep.evaluation.models import find_teacher
from fewstep.export.export import export
from fewstep.export.formats import Lora
from fewstep.runs.folder import RunFolder
from fewstep.sampling.model_spec import parse_spec
from tests.backbones import lora_files
from tests.training.tiny_run import recipe, run

SCALE = 0.5
LORA = "{kind: lora, rank: 2}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One student update at a learning rate that moves nothing: the student is its start."""
    folder = tmp_path_factory.mktemp("merged")
    recipe(folder)
    network = create_model_adapter(folder / "teacher").load_network()
    own = lora_files.factors(network, lora_files.layers_of(network, ["to_q", "to_out.0"]))
    lora_files.diffusers_file(folder / "style.safetensors", {"transformer": own})
    lora = f"backbone.lora=[{{path: {folder}/style.safetensors, scale: {SCALE}}}]"
    weights = [f"student.weights={LORA}", f"fake_score.weights={LORA}"]
    still = ["student.lr=1e-12", "fake_score.lr=1e-12", "budget.student_updates=1", "report.sheet_every=1"]
    run(recipe(folder, lora, *weights, *still), folder / "run")
    return folder


def test_the_exported_student_keeps_what_was_merged(trained: Path, tmp_path: Path) -> None:
    done = export(trained / "run", tmp_path / "student")
    student = create_model_adapter(done.folder, as_teacher=False).load_network()
    plain = dict(create_model_adapter(trained / "teacher").load_network().named_parameters())
    own = lora_files.factors(student, lora_files.layers_of(student, ["to_q", "to_out.0"]))
    for name, weight in student.named_parameters():
        pair = own.get(name.removesuffix(".weight"))
        expected = plain[name] if pair is None else lora_files.added(plain[name], pair, SCALE)
        # an update of 1e-12 and one float32 product in another order
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5)
    assert "| teacher lora | style.safetensors at scale 0.5 |" in (done.folder / "README.md").read_text()
    assert '"lora"' not in (done.folder / "fewstep.json").read_text()


def test_a_run_goes_on_with_the_file_that_it_began_with(trained: Path, tmp_path: Path) -> None:
    file = trained / "style.safetensors"
    began, config = file.read_bytes(), RunFolder.open(trained / "run").config
    try:
        network = create_model_adapter(trained / "teacher").load_network()
        other = lora_files.factors(network, lora_files.layers_of(network, ["to_q", "to_out.0"]), seed=9)
        lora_files.diffusers_file(file, {"transformer": other})
        with pytest.raises(ConfigError, match=r"backbone.lora\[0\] is .*style.safetensors, whose content has changed"):
            run(Recipe("tiny", config), trained / "run", resume=True)
        with pytest.raises(ConfigError, match="Put the original file back, or start a new run"):
            export(trained / "run", tmp_path / "student")
    finally:
        file.write_bytes(began)


def test_its_factors_alone_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has LoRAs merged into it .* export the whole student, with --format pipeline"
    ):
        export(trained / "run", tmp_path / "factors", format=Lora())


def test_an_evaluation_does_not_take_the_plain_checkpoint_for_the_teacher(trained: Path, tmp_path: Path) -> None:
    done = export(trained / "run", tmp_path / "student")
    with pytest.raises(ConfigError, match=r"with LoRAs merged into it \(style.safetensors at scale 0.5\).* --teacher"):
        find_teacher([parse_spec(str(done.folder))])


def test_a_lora_that_does_not_fit_ends_the_run_before_anything_is_embedded(trained: Path, tmp_path: Path) -> None:
    lora = f"backbone.lora=[{{path: {trained}/nowhere.safetensors}}]"
    with pytest.raises(ConfigError, match="There is no LoRA"):
        run(recipe(trained, lora), tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / ".cache").exists()
