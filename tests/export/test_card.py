"""The model card: what a run tells of its student, and what stays on the machine."""

import json
import re
from pathlib import Path

import pytest

from fewstep.backbones.licence import Licence, licence_of
from fewstep.backbones.protocol import BackboneConfig
from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.export.formats import ComfyUI, Format, Lora, Pipeline
from tests.training.tiny_run import recipe, run

LORA = "{kind: lora, rank: 2}"
README = """---
license: other
license_name: stability-ai-community
license_link: https://stability.ai/license
tags: [text-to-image]
---
# A teacher
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    settings = [
        f"student.weights={LORA}",
        f"fake_score.weights={LORA}",
        "report.sheet_every=1",
        "report.sheet_prompts=2",
    ]
    made = recipe(folder, "budget.student_updates=2", *settings)
    (folder / "teacher" / "README.md").write_text(README)
    run(made, folder / "run")
    return folder


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    (folder / "scores.md").write_text(
        "| model | steps | score |\n|---|---|---|\n| teacher (teacher) | 28 | 0.31 |\n\nProtocol 1a2b3c.\n"
    )
    return folder


@pytest.fixture(scope="module", params=[Pipeline(), Lora(), ComfyUI()], ids=["pipeline", "lora", "comfyui"])
def written(
    request: pytest.FixtureRequest, trained: Path, scores: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Format, Path]:
    out = tmp_path_factory.mktemp("written") / "mine"
    return request.param, export(trained / "run", out, format=request.param, scores=scores).folder


def test_the_head_tells_the_hub_what_it_is(written: tuple[Format, Path]) -> None:
    format, folder = written
    head = (folder / "README.md").read_text().split("---\n")[1]
    whole = isinstance(format, Pipeline)
    assert head == (
        "license: other\nlicense_name: stability-ai-community\nlicense_link: https://stability.ai/license\n"
        f"base_model_relation: {'finetune' if whole else 'adapter'}\nlibrary_name: diffusers\n"
        f"pipeline_tag: text-to-image\ntags: [fewstep, few-step, distillation{'' if whole else ', lora'}]\n"
    )


def test_the_card_has_the_runs_story(written: tuple[Format, Path]) -> None:
    _, folder = written
    text = (folder / "README.md").read_text()
    titles = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert titles == [
        *("Draw with plain diffusers", "Draw with ComfyUI", "Measured", "What was compared", "How it was trained"),
        *("Where it comes from", "Licence", "Citation"),
    ]
    assert "That of the teacher, `teacher`: stability-ai-community (https://stability.ai/license)." in text
    assert "| teacher (teacher) | 28 | 0.31 |\n\nProtocol 1a2b3c." in text
    assert "The prompts of a file, `prompts.txt`." in text and "| terms | ca, dm, cdm |" in text
    assert "| weights trained | factors of rank 2 |" in text and "eprint = {2605.06376}" in text


def test_the_card_shows_a_sheet_that_nobody_picked(written: tuple[Format, Path], trained: Path) -> None:
    _, folder = written
    assert (folder / "sheet.png").read_bytes() == (trained / "run" / "sheets" / "update-000002.png").read_bytes()
    text = (folder / "README.md").read_text()
    assert "![teacher over student](sheet.png)" in text
    assert "after 2 updates (below) and its teacher in 3 steps (above), from the same noise. Nothing was picked" in text


def test_nothing_of_the_machine_is_told(written: tuple[Format, Path], trained: Path) -> None:
    _, folder = written
    assert str(trained) not in (folder / "README.md").read_text()
    assert str(trained) not in (folder / "fewstep.json").read_text()


def test_comfyuis_part_says_what_to_set(written: tuple[Format, Path]) -> None:
    format, folder = written
    text = (folder / "README.md").read_text()
    if isinstance(format, ComfyUI):
        assert "Copy `mine.safetensors` into `models/loras`, open `workflow.json`" in text
        assert "sampler euler, sigmas 1, 0.9, 0.75, 0.5, 0 (ManualSigmas)" in text
    else:
        assert "`fewstep export RUN --format comfyui` writes them with a graph that draws." in text


def test_a_sheet_of_later_weights_is_not_shown(trained: Path, tmp_path: Path) -> None:
    sheets = trained / "run" / "sheets"
    later = sheets / "update-000009.png"
    later.write_bytes(b"later")
    try:
        done = export(trained / "run", tmp_path / "mine", format=Lora())
    finally:
        later.unlink()
    assert (done.folder / "sheet.png").read_bytes() == (sheets / "update-000002.png").read_bytes()


def test_what_a_run_measured_of_these_weights_is_told(trained: Path, tmp_path: Path) -> None:
    metrics, settings = trained / "run" / "metrics.jsonl", trained / "run" / "config.json"
    before, config = metrics.read_text(), settings.read_text()
    lines = [
        {"step": 1, "evaluation/digits": 0.25},
        {"step": 3, "evaluation/digits": 0.5},
        {"step": 9, "evaluation/digits": 1},
    ]
    asked = {"every": 1, "metrics": ["digits"], "num_prompts": 2, "num_seeds": 3}
    try:
        metrics.write_text(before + "".join(f"{json.dumps(line)}\n" for line in lines))
        settings.write_text(json.dumps(json.loads(config) | {"evaluation": asked}))
        text = (export(trained / "run", tmp_path / "mine", format=Lora()).folder / "README.md").read_text()
    finally:
        metrics.write_text(before)
        settings.write_text(config)
    assert "on the first 2 prompts of the run with 3 pictures each" in text and "| digits | 0.5 |" in text


def test_a_folder_without_scores_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no scores\.md; give the folder of an evaluation"):
        export(trained / "run", tmp_path / "mine", scores=tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n", Licence("apache-2.0")),
        ('---\ntags:\n- a\nlicense: "mit"\n---\nlicense_name: no', Licence("mit")),
        ("license: mit\n", None),
        ("---\nlicense:\n- mit\n---\n", None),
        ("---\nlicense: mit and more\n---\n", None),
    ],
)
def test_a_licence_is_read_from_the_head_alone(text: str, expected: Licence | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licence_of(BackboneConfig(kind="sd3", model=str(tmp_path))) == expected


def test_a_teacher_without_a_page_leaves_its_licence_open(trained: Path, tmp_path: Path) -> None:
    page = trained / "teacher" / "README.md"
    page.unlink()
    try:
        text = (export(trained / "run", tmp_path / "mine", format=Lora()).folder / "README.md").read_text()
    finally:
        page.write_text(README)
    assert text.startswith("---\nlicense: other\nbase_model_relation")
    assert "whose page was not at hand when this was written; look there" in text
