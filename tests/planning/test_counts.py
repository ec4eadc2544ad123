"""What plans measured of networks stays for later ones: the same figures without a network, and nothing that is not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fewstep.config import load_recipe
from fewstep.planning import counts
from fewstep.planning.counts import Counts, CountsFile
from fewstep.planning.meta_networks import planned_adapter, shipped
from fewstep.planning.plan import Planner
from fewstep.planning.planned_roles import PlannedRoles
from fewstep.planning.porting_matrix import PORTED

GIB = 2**30


def planned(folder: Path | None, *overrides: str) -> tuple[Planner, dict[str, object]]:
    planner = Planner("digits", overrides, keep=folder)
    return planner, planner.plan(gpus=1, memory=8 * GIB).as_dict()


def built(planner: Planner) -> set[str]:
    """The networks that a planner built to measure them."""
    return {"base", "whole"} & vars(planner.roles).keys()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("counts")
    return folder, planned(folder)[1]


def test_the_next_plan_says_the_same_and_builds_no_network(first: tuple[Path, dict[str, object]]) -> None:
    folder, said = first
    again, repeated = planned(folder)
    assert json.dumps(repeated) == json.dumps(said) == json.dumps(planned(None)[1])
    assert built(again) == set()


def test_another_budget_or_microbatch_needs_no_network_either(first: tuple[Path, dict[str, object]]) -> None:
    planner = Planner("digits", ["memory.microbatch=4", "budget.student_updates=7"], keep=first[0])
    planner.plan(gpus=2, memory=16 * GIB)
    assert built(planner) == set()


@pytest.mark.parametrize(
    "override",
    ["backbone={height: 16, width: 16}", "precision.compute=bf16", "student.weights={kind: lora, rank: 4, alpha: 4}"],
)
def test_another_network_has_another_file(first: tuple[Path, dict[str, object]], override: str) -> None:
    def file_of(*overrides: str) -> CountsFile | None:
        config = load_recipe("digits", overrides).config
        return CountsFile.of(first[0], config, planned_adapter(config.backbone).components)

    same, other = file_of(), file_of(override)
    assert same is not None and other is not None
    assert same.path.exists() and other.path != same.path


def test_a_file_that_was_changed_is_counted_anew(first: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    (whole,) = first[0].iterdir()
    damaged = tmp_path / whole.name
    content = json.loads(whole.read_text())
    content["counts"]["flops"] += 1.0
    damaged.write_text(json.dumps(content))
    planner, said = planned(tmp_path)
    assert said == first[1]
    assert "whole" in built(planner)
    assert damaged.read_text() == whole.read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_by": 3}', "\0" * 20])
def test_what_is_no_such_file_is_as_none(tmp_path: Path, text: str) -> None:
    file = CountsFile(tmp_path / "one.json", "me")
    file.path.write_text(text)
    assert file.read() == Counts()


def test_what_other_versions_counted_is_not_taken(tmp_path: Path) -> None:
    mine = CountsFile(tmp_path / "one.json", "mine")
    mine.write(Counts(flops=2.0))
    assert mine.read().flops == 2.0
    assert replace(mine, made_by="theirs").read() == Counts()


def test_versions_sources_and_settings_of_diffusers_make_it_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = load_recipe("digits").config

    def made_by() -> str:
        file = CountsFile.of(tmp_path, config, {})
        assert file is not None
        return file.made_by

    seen = {made_by()}
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "native")
    seen.add(made_by())
    monkeypatch.setattr(counts, "_sources", lambda: "edited")
    seen.add(made_by())
    monkeypatch.setattr(counts, "version", lambda name: "7")
    seen.add(made_by())
    assert len(seen) == 4


def test_nothing_is_kept_of_a_library_in_development(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(counts, "version", lambda name: "0.43.0.dev0")
    roles = PlannedRoles.kept_in(tmp_path, load_recipe("digits").config)
    assert roles.flops > 0
    roles.keep()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_only_the_time(
    tmp_path: Path, first: tuple[Path, dict[str, object]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert planned(tmp_path / "file" / "counts")[1] == first[1]


@pytest.mark.parametrize("row", PORTED, ids=lambda row: row.name)
def test_kept_configurations_are_the_completed_ones(row: object, tmp_path: Path) -> None:
    config = load_recipe(row.name).config  # type: ignore[attr-defined]
    file = CountsFile.of(tmp_path, config, {})
    assert file is not None
    whole = shipped(row.model)  # type: ignore[attr-defined]
    assert whole is not None
    file.write(Counts(components={name: dict(one) for name, one in whole.items()}))
    assert file.read().components == whole
