"""What a page calls by name is there: files, modules, members of classes, functions, settings."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from fewstep.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")
FILE = re.compile(r"((?:src|tests|tools|docs|benchmarks)/[\w./-]+|[\w./-]+\.(?:py|yaml|toml|md))(?:::(\w+))?")
IMPORT = re.compile(r"^\s*from (fewstep(?:\.[\w.]+)?) import ([\w, ]+)$", re.MULTILINE)
COMMAND = re.compile(r"^\s*(?:\$ )?fewstep ([a-z]+)", re.MULTILINE)
BASES = ("", "src", "src/fewstep", "tests")
# of names that a page makes up for its reader, and a switch of PyTorch's optimisers that we leave alone
NOT_OURS = {"X_embeds", "X_attention_mask", "foreach"}


def paragraphs(page: str) -> list[str]:
    """Items of lists, rows of tables and paragraphs, without blocks of code."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return re.split(r"\n(?=\s*(?:[-*|]|\d+\. ))|\n\s*\n", text)


@cache
def definitions(path: Path) -> frozenset[str]:
    """Functions, classes, variables and fields of one file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
    return frozenset(found)


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """Our classes by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def words() -> frozenset[str]:
    """Every word of the code, its recipes, tests and tools."""
    folders = (
        (ROOT / "src", ".py .yaml .json .md"),
        (ROOT / "tests", ".py"),
        (ROOT / "benchmarks", ".py"),
        (ROOT / "tools", ".py"),
    )
    files = [path for folder, kinds in folders for path in folder.rglob("*") if path.suffix in kinds.split()]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    texts = (path.read_text(encoding="utf-8") for path in files if path != Path(__file__))
    return frozenset(word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text))


def files_of(text: str, page: Path) -> list[tuple[str, str | None, Path | None]]:
    """Files that a text names, the test behind ``::``, and where each is."""
    found = []
    for span in SPAN.findall(text):
        if (match := FILE.fullmatch(span)) and ("/" in match[1] or match[1].endswith(".py")):
            places = [page.parent / match[1], *(ROOT / base / match[1] for base in BASES)]
            if "/" not in match[1]:
                places += (ROOT / "src").rglob(match[1])
            found.append((match[1], match[2], next((place for place in places if place.exists()), None)))
    return found


def members(name: str) -> set[str] | None:
    """What a class of ours has, its bases among our classes included; None where that cannot be told."""
    if name not in classes():
        return None
    found: set[str] = set()
    for node in classes()[name]:
        for inner in ast.walk(node):
            match inner:
                case ast.FunctionDef(name=member) | ast.Name(id=member, ctx=ast.Store()):
                    found.add(member)
                case ast.Attribute(attr=member, ctx=ast.Store()):
                    found.add(member)
        for base in node.bases:
            known = members(base.id) if isinstance(base, ast.Name) else None
            if known is None and not (isinstance(base, ast.Name) and base.id in ("ABC", "Protocol", "BaseModel")):
                return None
            found |= known or set()
    return found


def resolves(dotted: str) -> bool:
    """Whether ``fewstep.a.b.C.d`` can be imported."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(thing, part):
                return part in (members(parts[-2]) or ())
            thing = getattr(thing, part)
        return True
    return False


def problem(span: str, files: list[Path]) -> str | None:
    """What is wrong with one name in backticks, or None."""
    name = span.removesuffix("()")
    parts = name.split(".")
    if parts[0] == "fewstep" and len(parts) > 1 and parts[1:] != ["json"]:  # that one is a file
        return None if resolves(name) else f"{span} cannot be imported"
    if len(parts) == 2 and (known := members(parts[0])) is not None and parts[1] not in known:
        return f"{span}: {parts[0]} has no {parts[1]}"
    if parts[0].startswith("_") and files and not any(parts[0] in definitions(file) for file in files):
        return f"{span} is in none of the files named beside it"
    unknown = set(parts) - words() - NOT_OURS
    return f"{span}: {', '.join(sorted(unknown))} occurs nowhere in the code" if unknown else None


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    problems = []
    for text in paragraphs(page):
        named = files_of(text, ROOT / page)
        problems += [f"{file} does not exist" for file, _, place in named if place is None]
        problems += [
            f"{file} has no {test}"
            for file, test, place in named
            if test is not None and place is not None and test not in definitions(place)
        ]
        code = [place for _, _, place in named if place is not None and place.suffix == ".py"]
        problems += [found for span in SPAN.findall(text) if NAME.fullmatch(span) and (found := problem(span, code))]
    assert problems == []


@pytest.mark.parametrize("page", PAGES)
def test_what_the_code_of_a_page_imports_and_calls_is_there(page: str) -> None:
    code = "\n".join(FENCE.findall((ROOT / page).read_text(encoding="utf-8")))
    imported = [f"{module}.{name.strip()}" for module, names in IMPORT.findall(code) for name in names.split(",")]
    assert [name for name in imported if not resolves(name)] == []
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {str(group.name) for group in app.registered_groups}
    assert set(COMMAND.findall(code)) - commands - groups == set()


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ("fewstep.core.flow.nothing", "cannot be imported"),
        ("fewstep.core.nowhere", "cannot be imported"),
        ("Terms.needs_everything", "Terms has no needs_everything"),
        ("_look", "is in none of the files named beside it"),
        ("no_such_setting_anywhere", "occurs nowhere"),
        ("Terms.needs_whole_simulation", None),
        ("fewstep.methods.terms.Terms.ca", None),
        ("_probe", None),
        ("look", None),
    ],
)
def test_a_name_that_is_not_there_is_found(span: str, said: str | None) -> None:
    found = problem(span, [ROOT / "src/fewstep/methods/cdm.py"])
    assert found is None if said is None else said in str(found)
