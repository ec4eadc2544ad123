"""Workflows and container: actions pinned by commit, few rights, commands of the Makefile, packages as constrained."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+)(?: [\w-]+)*:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
# what writes something, and where it may
WRITES = {
    ("docs", "publish"): {"pages", "id-token"},
    ("release", "publish"): {"id-token"},
    ("security", "codeql"): {"security-events"},
    ("security", "scorecard"): {"security-events", "id-token"},
}
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_for_each_purpose() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "security", "test"]


@each_workflow
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    pinned = re.compile(r"      - uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_one_action_has_one_commit_everywhere() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    found = set(re.findall(r"uses: ([\w.-]+/[\w.-]+)[\w./-]*@(.+)", text))
    assert len(found) == len({action for action, _ in found})


@each_workflow
def test_a_workflow_may_read_and_only_jobs_that_write_may_write(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        written = {right for right, level in job.get("permissions", {}).items() if level == "write"}
        assert written == WRITES.get((path.stem, name), set())


@each_workflow
def test_no_checkout_leaves_its_credentials_behind(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@each_workflow
def test_what_a_workflow_runs_is_a_command_of_the_makefile(path: Path) -> None:
    targets = read(path)["jobs"].get("test", {}).get("strategy", {}).get("matrix", {}).get("target", [])
    asked = [step["run"] for step in steps(path) if step.get("run", "").startswith("make ")]
    named = {command.removeprefix("make ") for command in asked} - {"${{ matrix.target }}"}
    assert {target.split()[0] for target in (*targets, *named)} <= TARGETS
    others = [step["run"] for step in steps(path) if "run" in step and not step["run"].startswith("make ")]
    assert [command for command in others if not command.startswith("test ")] == []  # the tag against the wheel


@each_workflow
def test_nothing_that_a_stranger_wrote_is_put_into_a_shell(path: Path) -> None:
    asked = [expression for step in steps(path) for expression in re.findall(r"\$\{\{(.*?)\}\}", step.get("run", ""))]
    assert {expression.strip() for expression in asked} <= {"matrix.target"}


@each_workflow
def test_every_job_ends_by_itself(path: Path) -> None:
    assert all(job["timeout-minutes"] <= 120 for job in read(path)["jobs"].values())


def test_the_container_installs_as_constrained_and_runs_without_rights() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install .*", text)
    assert installs and all("--constraint constraints.txt" in line for line in installs)
    last = text.rpartition("\nFROM ")[2]
    assert last.index("USER fewstep") < last.index("ENTRYPOINT")


def test_what_the_container_copies_is_let_in_and_is_there() -> None:
    let_in = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == set(let_in)
    assert all((ROOT / name).exists() for name in names)
