"""The pages of docs/backbones say what the recipes and the adapters say."""

import re

import pytest

from fewstep.planning.porting_matrix import PORTED
from tests.backbones.pages import FOLDER, PAGES, adapters, filled


def test_every_family_has_its_page() -> None:
    assert set(PAGES) == {row.family for row in PORTED}


@pytest.mark.parametrize("family", sorted(PAGES))
def test_the_settings_of_a_page_are_those_of_its_recipes(family: str) -> None:
    """When it fails: python -m tests.backbones.pages."""
    page = (FOLDER / PAGES[family]).read_text(encoding="utf-8")
    assert filled(family, page) == page


@pytest.mark.parametrize("family", sorted(PAGES))
def test_a_page_tells_status_licence_effort_and_cost_of_every_recipe(family: str) -> None:
    page = (FOLDER / PAGES[family]).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", page, flags=re.MULTILINE))
    assert "tiny random weights" in rows["status"]
    assert "gated" in rows["licence"]
    assert rows["effort"].partition(":")[0] in ("easy", "medium", "hard")
    assert len(re.findall(r"\d+\.\d h", rows["expected cost on 8 x H100, computed"])) == len(adapters(family))
    for row in (row for row in PORTED if row.family == family):
        assert f"`{row.name}`" in page.splitlines()[0]
        assert row.model in rows["weights"]
        assert f"{row.parameters:,}" in rows["weights"]


@pytest.mark.parametrize("family", sorted(PAGES))
def test_a_page_names_every_lora_target_and_block(family: str) -> None:
    page = (FOLDER / PAGES[family]).read_text(encoding="utf-8")
    for adapter in adapters(family).values():
        for target in adapter.lora_targets:
            assert f"`{re.sub(r'(?<=blocks)[.][0-9]+', '.*', target)}`" in page
        assert all(f"`{block}`" in page for block in adapter.block_classes)
