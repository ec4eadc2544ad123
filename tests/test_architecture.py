"""The import rules: which part of the package may know which other part, read from the source with ast."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "fewstep"

# a part may import the standard library, fewstep.errors, itself, and what stands here
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"torch", "jaxtyping"},
    "methods": {"torch", "jaxtyping", "numpy", "pydantic", "fewstep.core"},
    "backbones": {
        *("torch", "jaxtyping", "pydantic", "safetensors", "diffusers", "transformers", "huggingface_hub"),
        *("fewstep.core", "fewstep.hub", "fewstep.embedded.assets"),
    },
    "distributed": {"torch"},
    "embedded": {"torch", "safetensors"},
    "roles": {
        *("torch", "jaxtyping", "peft", "bitsandbytes", "pydantic"),
        *("fewstep.core", "fewstep.backbones.protocol", "fewstep.distributed"),
    },
    "config": {
        *("pydantic", "pydantic_core", "yaml"),
        *("fewstep.core", "fewstep.methods.terms", "fewstep.roles.weights", "fewstep.backbones"),
    },
    "prompts": {"pyarrow"},
    "runs": {"torch", "pydantic", "filelock", "safetensors", "fewstep", "fewstep.config", "fewstep.distributed"},
    "data": {
        *("torch", "numpy", "pydantic", "safetensors", "datasets", "fewstep.core.conditioning"),
        *("fewstep.backbones", "fewstep.config", "fewstep.runs", "fewstep.embedded.prompts", "fewstep.prompts"),
    },
    "sampling": {
        *("torch", "jaxtyping", "numpy", "PIL", "fewstep.core", "fewstep.backbones", "fewstep.runs", "fewstep.prompts"),
    },
    "planning": {
        *("torch", "diffusers", "fewstep.config", "fewstep.core", "fewstep.methods.terms", "fewstep.backbones"),
        *("fewstep.roles", "fewstep.distributed"),
    },
    "scores": {
        *("torch", "jaxtyping", "numpy", "PIL", "pydantic", "safetensors", "transformers", "huggingface_hub"),
        *("rapidocr", "rapidfuzz", "fewstep", "fewstep.hub"),
        *("fewstep.embedded.assets", "fewstep.embedded.classifier", "fewstep.embedded.prompts"),
    },
    "evaluation": {
        *("torch", "PIL", "pydantic", "safetensors", "huggingface_hub", "rich", "datasets"),
        *("fewstep", "fewstep.backbones", "fewstep.config.evaluation_config", "fewstep.runs", "fewstep.sampling"),
        *("fewstep.prompts", "fewstep.scores", "fewstep.embedded.prompts"),
    },
    "training": {
        *("torch", "PIL", "pydantic", "rich"),
        *("fewstep.core", "fewstep.methods", "fewstep.roles", "fewstep.backbones", "fewstep.config", "fewstep.data"),
        *("fewstep.runs", "fewstep.sampling", "fewstep.distributed"),
        *("fewstep.evaluation.during_training", "fewstep.planning"),
    },
    "export": {
        *("torch", "numpy", "safetensors"),
        *("fewstep", "fewstep.backbones", "fewstep.config", "fewstep.roles", "fewstep.runs", "fewstep.training"),
    },
}
EVERYWHERE = {"fewstep.bounds", "fewstep.errors", "fewstep.files", "fewstep.seals"}
FREE = {"demo", "cli"}
FREE_FILES = {"evaluation/run.py"}


@dataclass(frozen=True)
class Import:
    """One imported module, and where it stands."""

    module: str
    where: str

    def is_of(self, allowed: str) -> bool:
        return self.module == allowed or (allowed != "fewstep" and self.module.startswith(f"{allowed}."))


def parts() -> list[str]:
    return sorted(path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file())


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where} imports relatively; write the whole name"
            yield Import(str(node.module), where)


def forbidden(part: str) -> list[str]:
    allowed = MAY_IMPORT[part] | EVERYWHERE | {f"fewstep.{part}"}
    return [
        f"{imported.where} imports {imported.module}"
        for path in files(SOURCE / part)
        if path.relative_to(SOURCE).as_posix() not in FREE_FILES
        for imported in imports_of(path)
        if imported.module.partition(".")[0] not in sys.stdlib_module_names
        and not any(imported.is_of(name) for name in allowed)
    ]


@pytest.mark.parametrize("part", parts())
def test_every_part_has_a_rule(part: str) -> None:
    assert part in MAY_IMPORT or part in FREE


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_imports_only_what_it_may_know(part: str) -> None:
    assert forbidden(part) == []


def test_nothing_imports_the_commands() -> None:
    outside = [path for path in files(SOURCE) if path.parent.name != "cli" and path.name != "__main__.py"]
    found = [i.where for path in outside for i in imports_of(path) if i.is_of("fewstep.cli") or i.is_of("typer")]
    assert found == []


def test_only_backbones_and_the_demo_know_diffusers() -> None:
    outside = [path for path in files(SOURCE) if path.relative_to(SOURCE).parts[0] not in ("backbones", "demo")]
    found = [
        i.where
        for path in outside
        for i in imports_of(path)
        # the planner builds networks of which nothing is there but the configuration
        if (i.is_of("diffusers") and path.relative_to(SOURCE).as_posix() != "planning/checkpoints.py")
        # the networks of the metrics
        or (i.is_of("transformers") and path.relative_to(SOURCE).parts[0] != "scores")
    ]
    assert found == []


def test_the_protocol_knows_no_model_library() -> None:
    found = [i.module for i in imports_of(SOURCE / "backbones" / "protocol.py")]
    assert not {"diffusers", "transformers", "huggingface_hub"} & set(found)


@pytest.mark.parametrize("module", ["fewstep.methods.cdm", "fewstep.config.recipe", "fewstep.backbones.registry"])
def test_importing_a_module_below_the_backbones_loads_no_diffusers(module: str) -> None:
    program = f"import sys, {module}; print('diffusers' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


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
