"""Write the tables of speed of docs/scaling.md from files and counts: python -m benchmarks.speed_tables"""

import json
from typing import Any

from benchmarks.others import sources_table, units_table
from benchmarks.pages import RESULTS, ROOT, filled, table

PAGE = ROOT / "docs" / "scaling.md"
TRAINING = ("training.json", "training-without-checkpointing.json", "training-embedded.json")
MIB = 2**20
QUANTITIES = {
    "seconds": "seconds",
    "rest": "seconds without attention",
    "attention": "seconds in attention",
    "units": "units",
    "working": "memory in a step",
    "exchanged": "bytes exchanged",
}


def training_table() -> str:
    """The plain formulation and ours, a row for each run."""
    rows = [
        ("run", "updates", "units of a sample", "ratio", "best", "CPU seconds", "ratio", "peak, MiB", "weights differ")
    ]
    for name in TRAINING:
        if not (RESULTS / name).exists():
            continue
        found = json.loads((RESULTS / name).read_text())
        rows.append(
            (
                f"{found['protocol']}, checkpointing {'on' if found['checkpointing'] else 'off'}",
                str(found["updates"]),
                _both(found, "units_per_update_and_sample", "{:.1f}"),
                f"**{found['ratios']['units']:.2f}**",
                f"{found['best_unit_ratio']['of_the_mean_length']:.2f}",
                _both(found, "cpu_seconds_per_update", "{:.2f}"),
                f"**{found['ratios']['cpu_seconds']:.2f}**",
                _both(found, "peak_bytes", "{:.0f}", MIB),
                f"{max(found['weights_relative_difference'].values()):.0e}",
            )
        )
    return table(rows)


def memory_table() -> str:
    """Peaks of the plain formulation and ours, and what ours is made of."""
    parts = ("weights", "optimiser", "ema", "gradients", "activations")
    rows = [("recomputation", "plain", "ours", "predicted", "in the", *parts)]
    for name, found in json.loads((RESULTS / "memory.json").read_text())["settings"].items():
        sizes = [
            found.get("plain"),
            found["ours"],
            found["predicted"],
            *(found["parts"].get(part, 0) for part in parts),
        ]
        told = ["" if size is None else f"{size / MIB:.0f}" for size in sizes]
        rows.append((name, *told[:3], found["phase"], *told[3:]))
    return table(rows)


def smallest_table() -> str:
    """The smallest settings of every recipe, before and now."""
    rows = [("recipe", "trains", "on the device, GiB", "offloaded, GiB")]
    for name, found in json.loads((RESULTS / "smallest.json").read_text())["gib"].items():
        told = (
            f"{found[where]['before']:.1f} to **{found[where]['now']:.1f}**" for where in ("on the device", "offloaded")
        )
        rows.append((*name.split(), *told))
    return table(rows)


def scaling_table() -> str:
    """Exponents by axis."""
    axes: dict[str, Any] = json.loads((RESULTS / "scaling.json").read_text())["axes"]
    rows = [("grows", "values", *QUANTITIES.values())]
    for axis, found in axes.items():
        exponents = [found["exponents"].get(quantity) for quantity in QUANTITIES]
        told = ["" if value is None else f"{value + 0.0:.2f}" for value in exponents]
        rows.append((axis, ", ".join(found["measured"]), *told))
    return table(rows)


def embedding_table() -> str:
    """Reading and embedding prompts."""
    found = json.loads((RESULTS / "embedding.json").read_text())
    rows = [("stage", "CPU seconds", "memory added to the peak, MiB")]
    names = {"read": "read the csv file", "embed": "embed and write", "use": "read batches back"}
    for stage, name in names.items():
        seconds, growth = (found[stage][figure] for figure in ("cpu_seconds", "peak_rss_growth_mib"))
        rows.append((f"{name} ({found['prompts']} prompts)", f"{seconds:.1f}", f"{growth:.0f}"))
    rows.append(("all, imports and encoders included", "", f"{found['peak_rss_mib']:.0f} in all"))
    return table(rows)


TABLES = {
    "training": training_table,
    "memory": memory_table,
    "smallest": smallest_table,
    "scaling": scaling_table,
    "embedding": embedding_table,
    "others": units_table,
    "sources": sources_table,
}


def _both(found: dict[str, Any], name: str, form: str, unit: float = 1.0) -> str:
    return " to ".join(form.format(found[side][name] / unit) for side in ("plain", "ours"))


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), TABLES))
