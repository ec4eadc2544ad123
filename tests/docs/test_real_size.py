"""The table of a run at a released model's real size holds the figures of the measurement that is kept beside it."""

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FOUND = json.loads((DOCS / "results/real-size.json").read_text(encoding="utf-8"))
STAGES = {row["stage"]: row for row in FOUND["stages"]}
LINES = {
    "check, plan, embed (4 prompts)": ("check", "plan", "embed"),
    "train, killed behind its first checkpoint": ("train, killed behind its first checkpoint",),
    "resume to the end": ("resume to the end",),
    "export factors, export pipeline (each draws twice in float32 and compares)": ("export factors", "export pipeline"),
    "sample one picture": ("sample",),
}


@pytest.mark.parametrize("label", LINES)
def test_a_line_is_what_was_measured(label: str) -> None:
    rows = [STAGES[name] for name in LINES[label]]
    seconds = ", ".join(f"{row['cpu_seconds']:.0f}" for row in rows)
    peaks = [row["peak_bytes"] / 2**30 for row in rows]
    told = ", ".join(f"{peak:.1f}" if peak >= 1 else f"{peak:.2f}" for peak in peaks)
    assert f"| {label} | {seconds} | {told} |" in (DOCS / "scaling.md").read_text(encoding="utf-8")


def test_a_unit_takes_what_was_measured_at_the_size_and_recipe_that_are_named() -> None:
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    assert f"takes {FOUND['seconds_per_unit']:.1f} seconds" in page
    assert (FOUND["recipe"], FOUND["size"], FOUND["threads"], FOUND["tiny"]) == ("sana-600m", 1024, 1, False)
