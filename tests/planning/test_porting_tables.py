"""The porting matrix agrees with the recipes, the adapters and the page."""

import json
from pathlib import Path

import pytest

from fewstep.backbones import adapter_class
from fewstep.backbones.registry import BUILT_IN
from fewstep.config import load_recipe
from fewstep.planning import porting_tables
from fewstep.planning.porting_matrix import MATRIX, PORTED, REFUSED, Target
from tests.backbones.families import REAL_CONFIGURATIONS

PAGES = Path(__file__).parents[2] / "docs" / "backbones"


def by_name(rows: tuple[Target, ...]) -> list[str]:
    return [row.name for row in rows]


def test_names_are_unique() -> None:
    assert len(set(by_name(MATRIX))) == len(MATRIX)


def test_every_built_in_backbone_has_a_row() -> None:
    assert set(BUILT_IN) == {row.family for row in PORTED}


@pytest.mark.parametrize("row", PORTED, ids=lambda row: row.name)
def test_a_ported_row_is_a_recipe_of_its_model_and_family(row: Target) -> None:
    backbone = load_recipe(row.name).config.backbone
    assert (backbone.kind, backbone.model) == (row.family, row.model)
    assert adapter_class(row.family).pipeline_class == row.pipeline


@pytest.mark.parametrize("row", PORTED, ids=lambda row: row.name)
def test_parameters_are_those_of_the_real_configuration(row: Target) -> None:
    assert REAL_CONFIGURATIONS[row.name].num_parameters == row.parameters


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_what_cannot_be_distilled_says_why(row: Target) -> None:
    assert len(row.reason) > 20
    assert row.refused == (row in REFUSED)


@pytest.mark.parametrize("port", porting_tables.ports(), ids=lambda port: port.target.name)
def test_every_recipe_has_its_cost(port: porting_tables.Port) -> None:
    assert port.hours is not None
    assert 0.1 < port.hours < 100.0


def test_the_recommended_order_counts_from_one() -> None:
    assert [port.place for port in porting_tables.ports()] == list(range(1, len(PORTED) + 1))


def test_the_json_holds_every_target_with_the_documented_fields() -> None:
    rows = json.loads(porting_tables.as_json())
    assert [row["name"] for row in rows] == by_name(MATRIX)
    documented = {"name", "pipeline", "parameters", "prediction", "status", "refused", "reason"}
    assert all(set(row) == documented for row in rows)
    schnell = next(row for row in rows if row["name"] == "flux1-schnell")
    assert (schnell["parameters"], schnell["refused"]) == (11_891_178_560, True)
    assert "FLUX.1-dev" in schnell["reason"]


def test_the_page_holds_what_the_command_prints() -> None:
    """When it fails: write what `fewstep backbones --markdown` prints between the two comments of the page."""
    page = (PAGES / "README.md").read_text(encoding="utf-8")
    written = page.partition("<!-- fewstep backbones --markdown -->\n")[2].partition("<!-- end -->")[0]
    assert written.strip() == porting_tables.as_markdown().strip()


@pytest.mark.parametrize("family", sorted(BUILT_IN))
def test_every_family_has_a_page_that_tells_what_was_run(family: str) -> None:
    pages = [page.read_text(encoding="utf-8") for page in PAGES.glob("*.md")]
    about = [page for page in pages if f"kind `{family}`" in page.splitlines()[0]]
    assert len(about) == 1
    for row in ("| licence |", "| effort |", "| expected cost |", "tiny random weights"):
        assert row in about[0]
