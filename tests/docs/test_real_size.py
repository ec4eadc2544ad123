"""The table of runs at released models' real sizes holds the figures of the measurements that are kept beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SANA, SD3 = (
    json.loads((DOCS / "results" / name).read_text(encoding="utf-8"))
    for name in ("real-size.json", "real-size-sd3-medium.json")
)
LINES = {
    "check, plan, embed (4 prompts)": ("check", "plan", "embed"),
    "train, killed behind its first checkpoint": ("train, killed behind its first checkpoint",),
    "resume to the end": ("resume to the end",),
    "export factors, export pipeline (each draws twice in float32 and compares)": ("export factors", "export pipeline"),
    "sample one picture": ("sample",),
}


def cells(found: dict[str, Any], stages: tuple[str, ...]) -> str:
    """CPU seconds and peaks of some stages of one run."""
    by_name = {row["stage"]: row for row in found["stages"]}
    seconds = ", ".join(f"{by_name[name]['cpu_seconds']:.0f}" for name in stages)
    peaks = [by_name[name]["peak_bytes"] / 2**30 for name in stages]
    return f"{seconds} | " + ", ".join(f"{peak:.1f}" if peak >= 1 else f"{peak:.2f}" for peak in peaks)


@pytest.mark.parametrize("label", LINES)
def test_a_line_is_what_was_measured(label: str) -> None:
    stages = LINES[label]
    line = f"| {label} | {cells(SANA, stages)} | {cells(SD3, stages)} |"
    assert line in (DOCS / "scaling.md").read_text(encoding="utf-8")


def test_runs_are_of_the_recipes_and_sizes_that_are_named() -> None:
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    assert f"of SANA-600M takes {SANA['seconds_per_unit']:.1f} seconds" in page
    assert f"{SD3['planned']['peak_gib']:.1f} GiB of tensors are predicted" in page
    assert f"nine shards and {SD3['checkpoint_bytes'] / 1e9:.1f} GB" in page and SD3["shards"] == 9
    for found, recipe, size in ((SANA, "sana-600m", 1024), (SD3, "sd3-medium", 512)):
        assert (found["recipe"], found["size"], found["threads"], found["tiny"]) == (recipe, size, 1, False)
