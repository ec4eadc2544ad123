"""docs/equations.md and the code name the same formulas."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| `(fewstep\.[\w.]+)` \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "equations.md").read_text())


def tags(text: str) -> set[str]:
    return set(re.findall(r"\[eq:([a-z0-9-]+)\]", text))


def test_every_tag_in_the_code_has_a_row_and_every_row_a_tag() -> None:
    in_code = set().union(*(tags(path.read_text()) for path in (ROOT / "src").rglob("*.py")))
    assert in_code == {row[0] for row in ROWS}


@pytest.mark.parametrize(("tag", "function", "test_file", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_the_row_names_a_function_with_the_tag_and_a_test(tag: str, function: str, test_file: str, test: str) -> None:
    module, name = function.rsplit(".", 1)
    assert tag in tags(getattr(importlib.import_module(module), name).__doc__)
    assert f"def {test}(" in (ROOT / test_file).read_text()
