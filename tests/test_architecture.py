"""The import rules: which part of the package may know which other part, read from the source with ast."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "fewstep"

# what a part near the ground may import beside the standard library
GROUND = {
    f"fewstep.{name}"
    for name in ("bounds", "devices", "errors", "files", "garbage", "pickles", "plugins", "seals", "section", "tensors")
}
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"torch", "jaxtyping", *GROUND},
    "methods": {"torch", "jaxtyping", "numpy", "pydantic", "fewstep.core", *GROUND},
    "embedded": {"torch", "safetensors", *GROUND},
    "distributed": {"torch", *GROUND},
}
# what keeps a part of use alone: models without a method, pictures and prompts without a model or a run
MAY_KNOW: dict[str, set[str]] = {
    "backbones": {"core", "embedded", "hub"},
    "scores": {"embedded", "hub"},
}


@dataclass(frozen=True)
class Import:
    """One imported module, and where it stands."""

    module: str
    where: str

    def is_of(self, allowed: str) -> bool:
        return self.module == allowed or (allowed != "fewstep" and self.module.startswith(f"{allowed}."))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Every import of a file, those inside functions and under TYPE_CHECKING included."""
    found: list[Import] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            found += (Import(alias.name, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where} imports relatively; write the whole name"
            if node.module == "fewstep":
                found += (Import(f"fewstep.{alias.name}", where) for alias in node.names)
            else:
                found.append(Import(str(node.module), where))
    return tuple(found)


def part_of(path: Path) -> str:
    """A folder of the package, or a module that stands beside the folders."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


@cache
def imports_between_parts() -> dict[tuple[str, str], list[str]]:
    """Which part imports which, and where. The package's own names, such as its version, belong to no part."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in files(SOURCE):
        for imported in imports_of(path):
            package, _, rest = imported.module.partition(".")
            other = rest.partition(".")[0]
            if package == "fewstep" and other not in ("", part_of(path)):
                found.setdefault((part_of(path), other), []).append(imported.where)
    return found


def test_the_parts_form_no_circle() -> None:
    between = imports_between_parts()
    graph = TopologicalSorter[str]()
    for part, other in between:
        graph.add(part, other)
    try:
        graph.prepare()
    except CycleError as error:
        circle = error.args[1]
        pytest.fail("\n".join(f"{b} imports {a}: {', '.join(between[b, a])}" for a, b in pairwise(circle)))


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_near_the_ground_imports_only_what_it_may_know(part: str) -> None:
    found = [
        f"{imported.where} imports {imported.module}"
        for path in files(SOURCE / part)
        for imported in imports_of(path)
        if imported.module.partition(".")[0] not in sys.stdlib_module_names
        and not any(imported.is_of(name) for name in (*MAY_IMPORT[part], f"fewstep.{part}"))
    ]
    assert found == []


@pytest.mark.parametrize("part", sorted(MAY_KNOW))
def test_a_part_of_use_alone_knows_no_other_than_these(part: str) -> None:
    known = {f"fewstep.{other}" for one, other in imports_between_parts() if one == part}
    assert known - GROUND <= {f"fewstep.{other}" for other in (*MAY_KNOW[part], "__version__")}


def test_nothing_that_runs_imports_what_tests_a_port() -> None:
    outside = [path for path in files(SOURCE) if part_of(path) != "testing"]
    found = [i.where for path in outside for i in imports_of(path) if i.is_of("fewstep.testing") or i.is_of("pytest")]
    assert found == []


def test_nothing_imports_the_commands() -> None:
    outside = [path for path in files(SOURCE) if path.parent.name != "cli" and path.name != "__main__.py"]
    found = [i.where for path in outside for i in imports_of(path) if i.is_of("fewstep.cli") or i.is_of("typer")]
    assert found == []


def test_only_backbones_know_diffusers() -> None:
    # what a port is tested with makes tiny pipelines
    outside = [path for path in files(SOURCE) if path.relative_to(SOURCE).parts[0] not in ("backbones", "testing")]
    found = [
        i.where
        for path in outside
        for i in imports_of(path)
        # the planner builds networks of which nothing is there but the configuration
        if (i.is_of("diffusers") and path.relative_to(SOURCE).as_posix() != "planning/meta_networks.py")
        # the networks of the metrics
        or (i.is_of("transformers") and path.relative_to(SOURCE).parts[0] != "scores")
    ]
    assert found == []


def test_the_protocol_knows_no_model_library() -> None:
    found = [i.module for i in imports_of(SOURCE / "backbones" / "protocol.py")]
    assert not {"diffusers", "transformers", "huggingface_hub"} & set(found)


def test_importing_what_lies_below_the_backbones_and_what_draws_loads_no_diffusers() -> None:
    below = "fewstep.methods.cdm, fewstep.config.recipe, fewstep.backbones.registry, fewstep.sampling.loaded"
    libraries = ("diffusers", "transformers", "peft", "scipy", "torch._dynamo", "torch.distributed.fsdp")
    program = f"import sys, {below}; print([name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_file_is_named_after_nothing() -> None:
    empty_names = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert [str(path) for path in files(SOURCE) if path.stem in empty_names] == []


# two packages look their public names up when they are used, so that quick commands load no torch
LAZY = {Path("__init__.py"), Path("config/__init__.py")}


@pytest.mark.parametrize("path", [path.relative_to(SOURCE) for path in files(SOURCE) if path.name == "__init__.py"])
def test_a_package_file_re_exports_and_does_nothing_else(path: Path) -> None:
    body = ast.parse((SOURCE / path).read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.Module(body=body, type_ignores=[]))
    others = [
        node
        for node in body[1:]
        if not isinstance(node, ast.Import | ast.ImportFrom)
        and not (
            isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
        )
    ]
    assert others == [] or path in LAZY


def test_a_config_reads_no_environment_and_counts_no_devices() -> None:
    names = {
        node.attr
        for path in files(SOURCE / "config")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert not {"environ", "getenv", "device_count", "is_available"} & names
