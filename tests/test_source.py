"""What can be read off the source itself: imports, addresses, devices, swallowed errors, settings without a reader."""

import ast
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import fewstep
from fewstep.config.run_config import RunConfig
from fewstep.methods.terms import Terms

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fewstep"
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = sorted(module.name for module in pkgutil.walk_packages(fewstep.__path__, "fewstep."))
# names under which a package is imported, where they differ from the one it is installed by
INSTALLED_AS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "pydantic_core": "pydantic"}
PUBLIC_HOSTS = {"arxiv.org", "github.com", "huggingface.co", "pypi.org"}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_can_be_imported(module: str) -> None:
    assert import_module(module).__doc__


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = {re.split(r"[<>=~!\[ ;]", line)[0].lower().replace("_", "-") for line in lines}
    imported = {
        name.partition(".")[0]
        for path in FILES
        for node in nodes(path)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    foreign = imported - sys.stdlib_module_names - {"fewstep"}
    assert {INSTALLED_AS.get(name, name).lower().replace("_", "-") for name in foreign} - declared == set()


def test_every_declared_package_has_an_exact_version_in_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = {re.split(r"[<>=~!\[ ;]", line)[0].lower().replace("_", "-") for line in lines}
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert declared - pinned == set()


def is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or getattr(kind, "id", None) in ("Exception", "BaseException") for kind in kinds)


def test_no_error_is_swallowed_whatever_it_is() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.ExceptHandler)
        and is_broad(node)
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    # the command itself turns what is left into a message and an exit code
    assert [place for place in found if not place.startswith("cli/main.py:")] == []


def test_only_the_choice_of_a_device_names_one() -> None:
    named = {
        name_of(path)
        for path in FILES
        for node in nodes(path)
        if (isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"(cuda|nccl)\b", node.value))
        or (isinstance(node, ast.Attribute) and node.attr in ("current_device", "set_device"))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda")
    }
    assert named == {
        *("config/run_config.py", "devices.py", "training/run.py", "data/embeddings.py"),
        "distributed/world.py",  # which communication goes with it
        "roles/quantised.py",  # where bitsandbytes computes
        "roles/compilation.py",  # where graphs can be recorded
        "planning/measured.py",  # whose allocator counts
        "doctor/machine.py",  # what is here
    }


def test_nothing_is_sent_anywhere_but_to_public_hosts() -> None:
    texts = [path.read_text(encoding="utf-8") for path in [*FILES, *SOURCE.rglob("*.yaml")]]
    hosts = {host.removeprefix("www.") for text in texts for host in re.findall(r"https?://([\w.-]+)", text)}
    assert hosts <= PUBLIC_HOSTS


def test_no_path_of_somebodys_machine_is_in_the_source() -> None:
    files = [*FILES, *SOURCE.rglob("*.yaml"), *SOURCE.rglob("*.json"), *(ROOT / "docs").rglob("*.md")]
    private = re.compile(r"(?<![\w.])/(home|Users|mnt|root|data|tmp)/\w")
    assert [str(path) for path in files if private.search(path.read_text(encoding="utf-8"))] == []


def test_every_setting_is_read_by_the_code() -> None:
    schema = RunConfig.model_json_schema()
    settings = {name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", {})}
    read = {
        name
        for path in FILES
        for node in nodes(path)
        for name in (
            [node.attr]
            if isinstance(node, ast.Attribute)
            else node.kwd_attrs
            if isinstance(node, ast.MatchClass)
            else []
        )
    }
    # kind, law and at choose a type: the type is what is read; and the terms are read one after the other
    assert settings - read - {"kind", "law", "at"} - Terms.model_fields.keys() == set()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_what_a_page_links_to_exists(page: str) -> None:
    folder = (ROOT / page).parent
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [target for target in targets if target and not (folder / target).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_make_commands_of_a_page_exist(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = re.findall(r"^\s*make ([\w-]+)|`make ([\w-]+)`", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for pair in asked for name in pair if name} <= targets
