"""How fast and how large training is on this machine's GPU: python -m benchmarks.gpu [--minutes 8]

The real configurations of SD3-Medium and SANA-600M with random weights made on the device; nothing is downloaded. Each
case has a budget of its own; what does not fit into memory, is not there or finds no time left is a row that says so.
The file is written whole after every case, so that a run which is killed leaves what it had; its most useful cases come
first. `fewstep plan RECIPE --measured FILE` reads it. `--device cpu --tiny` runs all of it in seconds, to see it work.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import fewstep
from benchmarks.gpu_cases import MODES, Case, cases
from benchmarks.gpu_updates import Bench
from fewstep.files import write_json
from fewstep.planning.measurements import Card, CaseRow, Measurements, stated_peak

_MOST_MINUTES = 600
_SMALL = "sana-600m, full, checkpointing, microbatch 1, bf16"
PAIRS = {
    "fp32_to_bf16": (
        "sd3-medium, lora, checkpointing, microbatch 1, fp32",
        "sd3-medium, lora, checkpointing, microbatch 1, bf16",
    ),
    "checkpointing_to_selective": (
        "sd3-medium, lora, checkpointing, microbatch 1, bf16",
        "sd3-medium, lora, selective, microbatch 1, bf16",
    ),
    "spread_to_whole": (
        "sd3-medium, lora, checkpointing, microbatch 1, bf16",
        "sd3-medium, lora, checkpointing, microbatch 1, bf16, not spread",
    ),
    "eager_to_compiled_sd3-medium": (
        "sd3-medium, full, checkpointing, microbatch 1, bf16",
        "sd3-medium, full, checkpointing, microbatch 1, bf16, compiled",
    ),
    "eager_to_compiled_sana-600m": (
        "sana-600m, full, checkpointing, microbatch 4, bf16",
        "sana-600m, full, checkpointing, microbatch 4, bf16, compiled",
    ),
    "eager_to_compiled_microbatch_1": (f"{_SMALL}, not spread", f"{_SMALL}, compiled, not spread"),
    **{
        f"compiled_to_{mode}": (f"{_SMALL}, compiled, not spread", f"{_SMALL}, compiled {mode}, not spread")
        for mode in MODES
        if mode is not True
    },
}
"""Seconds per forward of one case over those of another."""


class OutOfTimeError(BaseException):
    """The time of a case is over; no library may take it for an error of its own."""


def card_of(device: torch.device) -> Card:
    """What the device says of itself."""
    if device.type != "cuda":
        return Card(name="CPU", memory_bytes=None, capability=None, driver=None, peak_teraflops={})
    about = torch.cuda.get_device_properties(device)
    return Card(
        name=about.name,
        memory_bytes=about.total_memory,
        capability=f"{about.major}.{about.minor}",
        driver=_driver(),
        peak_teraflops=stated_peak(about.name),
    )


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Stop what is inside when its time is over, between two operations of Python."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    if not hasattr(signal, "setitimer"):  # Windows: a case that hangs is waited for
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(
    chosen: Sequence[Case], bench: Bench, *, minutes: float, write: Callable[[Measurements], None]
) -> Measurements:
    """Measure one case after the other until the minutes are over, and write after each."""
    end = time.monotonic() + 60 * minutes
    found = Measurements(
        fewstep=fewstep.__version__,
        torch=torch.__version__,
        toolkit=torch.version.cuda,
        minutes=minutes,
        tiny=bench.tiny,
        card=bench.card,
    )
    for case in chosen:
        row, ratios = _row(case, bench, end)
        rows = (*found.rows, row)
        found = found.model_copy(update={"rows": rows, "ratios": found.ratios | ratios | _ratios(rows)})
        write(found)
    return found


def _row(case: Case, bench: Bench, end: float) -> tuple[CaseRow, dict[str, float]]:
    started = time.monotonic()
    budget = min(case.seconds, end - started)
    measured: dict[str, Any] = {}
    why: str | None = None
    if case.only_on_gpu and not bench.on_gpu:
        why = "it is measured on a GPU only"
    elif budget <= 0:
        why = "the minutes were over"
    else:
        bench.left = lambda: started + budget - time.monotonic()
        try:
            with at_most(budget):
                measured = case.measure(bench)
        except OutOfTimeError:
            why = f"its {budget:.0f} seconds were over"
        except torch.OutOfMemoryError:
            why = "out of memory"
        except Exception as error:
            # whatever a machine does not have is a row
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]
    with suppress(RuntimeError):  # after an error of the device even this may fail, as every case behind it will
        bench.free()
    ratios = measured.pop("ratios", {})
    row = CaseRow(case=case.name, took_seconds=round(time.monotonic() - started, 3), not_run=why, **measured)
    print(f"{row.case}: {_told(row)}", file=sys.stderr, flush=True)
    return row, ratios


def _told(row: CaseRow) -> str:
    if row.not_run is not None:
        return f"not run: {row.not_run}"
    if row.update is None:
        return f"measured in {row.took_seconds:.1f} s"
    update = row.update
    used = "" if update.utilisation is None else f" ({update.utilisation:.0%})"
    planned = "" if update.predicted_bytes is None else f", {update.predicted_bytes / 2**30:.2f} predicted"
    seconds = sum(update.seconds) / len(update.seconds)
    return (
        f"{seconds:.3g} s per update of {update.batch}, {update.teraflops:.3g} TFLOP/s{used}, "
        f"peak {update.peak_bytes / 2**30:.2f} GiB{planned}"
    )


def _ratios(rows: Sequence[CaseRow]) -> dict[str, float]:
    """Of pairs of cases that both ran."""
    updates = {row.case: row.update for row in rows if row.update is not None}
    each = {name: sum(one.seconds) / len(one.seconds) / one.batch / one.units for name, one in updates.items()}
    return {
        name: each[first] / each[second] for name, (first, second) in PAIRS.items() if first in each and second in each
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all cases together")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="networks and pictures that a CPU does in seconds")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose names contain one of these")
    parser.add_argument("--output", type=Path, help="the file; gpu-CARD.json unless given")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here; --device cpu --tiny shows that the program works")
    if given.device == "cpu" and not given.tiny:
        parser.error("--device cpu needs --tiny: the real networks take days and 64 GiB there")
    if not 0 < given.minutes <= _MOST_MINUTES:
        parser.error(f"--minutes is {given.minutes:g}; it must be above 0 and at most {_MOST_MINUTES}")
    device = torch.device("cuda", 0) if given.device == "cuda" else torch.device("cpu")
    bench = Bench(device, card_of(device), given.tiny)
    chosen = [case for case in cases() if not given.only or any(text in case.name for text in given.only)]
    if not chosen:
        parser.error(f"no case has {' or '.join(given.only)} in its name")
    path = given.output or Path(f"gpu-{re.sub(r'[^a-z0-9]+', '-', bench.card.name.lower())}.json")
    found = measure(
        chosen, bench, minutes=given.minutes, write=lambda now: write_json(path, now.model_dump(mode="json"))
    )
    print(found.model_dump_json(indent=1))
    print(f"Written to {path}.", file=sys.stderr)
    if all(row.not_run is not None for row in found.rows):
        sys.exit("Nothing was measured.")


if __name__ == "__main__":
    main()
