"""docs/architecture.md: what stands under a file is imported by it, and folders know each other by their doors."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_architecture import SOURCE, files, imports_of, part_of

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def steps() -> list[tuple[str, str]]:
    """Every (file, file above it) of the page's nested lists."""
    found: list[tuple[str, str]] = []
    above: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        item = re.match(r"( *)- `([\w/]+\.py)`: ", line)
        if item is None:
            assert not line.lstrip().startswith("- "), f"an item names no file first: {line}"
            continue
        depth = len(item[1]) // 2
        assert depth <= len(above), f"an item hangs in the air: {line}"
        above = [*above[:depth], item[2]]
        found += [(item[2], above[depth - 1])] if depth else []
    return found


@pytest.mark.parametrize(("below", "above"), dict.fromkeys(steps()))
def test_a_file_is_imported_by_the_one_it_stands_under(below: str, above: str) -> None:
    module = "fewstep." + below.removesuffix(".py").replace("/", ".")
    package, _, name = module.rpartition(".")
    whole = module in {found.module for found in imports_of(SOURCE / above)}
    assert whole or re.search(rf"from {package} import .*\b{name}\b", (SOURCE / above).read_text(encoding="utf-8"))


def test_the_page_has_its_five_walks() -> None:
    walks = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert walks == ["A prompt", "A sigma", "An override", "A tensor on resume", "A picture to the report", "Doors"]
    assert len(steps()) > 40


def names_that_cross() -> set[tuple[str, str]]:
    """Every (file, name) of a folder that another part of the package imports; a whole file is a name of its own."""
    found: set[tuple[str, str]] = set()
    for path in files(SOURCE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("fewstep."):
                continue
            parts = str(node.module).split(".")[1:]
            if parts[0] == part_of(path) or not (SOURCE / parts[0]).is_dir():
                continue
            for alias in node.names:
                module = SOURCE.joinpath(*parts, alias.name).with_suffix(".py")
                file = module if module.exists() else SOURCE.joinpath(*parts).with_suffix(".py")
                file = file if file.exists() else SOURCE.joinpath(*parts, "__init__.py")
                found.add((file.relative_to(SOURCE).as_posix(), alias.name))
    return found


def test_the_doors_are_the_files_that_other_folders_import() -> None:
    doors = PAGE.read_text(encoding="utf-8").partition("## Doors")[2]
    named = {
        f"{row[1]}/{door.removeprefix(f'{row[1]}/')}"
        for row in re.finditer(r"^\| `(\w+)/` \| (.+?) \|", doors, re.MULTILINE)
        for door in re.findall(r"`([\w/]+\.py)`", row[2])
    }
    assert named == {file for file, _ in names_that_cross()}


def test_few_names_cross_between_folders() -> None:
    assert 100 < len(names_that_cross()) < 400
