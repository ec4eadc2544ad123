"""Run the numeric tests as other processors would: fewer instructions, other kernels, more threads.

python -m tests.portable [SETTING ...] [--threads 1,2,4] [--workers 2] [--tests tests ...]
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# each library chooses its kernels by what the processor can do; these make it choose as on another one
SETTINGS: dict[str, dict[str, str]] = {
    "torch-without-vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "torch-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "mkl-avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
    "onednn-sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}
# all three libraries at once, as on the oldest processor that they run on
SETTINGS["oldest"] = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def environment(name: str, threads: int) -> dict[str, str]:
    """The process's own environment with one setting; other settings that it came with are dropped."""
    others = {variable for setting in SETTINGS.values() for variable in setting}
    own = {variable: value for variable, value in os.environ.items() if variable not in others}
    # threads that wait for each other on fewer cores must not spin
    count = {"FEWSTEP_TEST_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0"}
    return {**own, **SETTINGS[name], **count, "HF_HUB_OFFLINE": "1"}


def tried(name: str, threads: int, *, workers: int, tests: Sequence[str]) -> bool:
    """Run the numeric tests under one setting; print one line, and the failures."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "numeric and not slow", "-n", str(workers), *tests]
    command += ["--dist", "worksteal"] if workers else []
    done = subprocess.run(
        command, cwd=ROOT, env=environment(name, threads), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = done.stdout.splitlines() or ["no output"]
    print(
        f"{name}, threads {threads}: {'FAILED' if done.returncode else 'passed'} ({lines[-1].strip('= ')})", flush=True
    )
    if done.returncode:
        print("\n".join([line for line in lines if re.match(r"FAILED|ERROR", line)] or lines[-20:]), flush=True)
    return done.returncode == 0


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked; 1 when a setting failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"of {', '.join(SETTINGS)}; all when none")
    parser.add_argument("--threads", default="1,2,4", help="numbers of threads (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="test processes at a time (default %(default)s)")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="folders or files of tests (default: all)")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.settings) - set(SETTINGS))
    if unknown:
        parser.error(f"there is no setting {', '.join(unknown)}; there are {', '.join(SETTINGS)}")
    counts = [int(count) for count in asked.threads.split(",")]
    chosen = [(name, threads) for name in asked.settings or SETTINGS for threads in counts]
    results = [tried(name, threads, workers=asked.workers, tests=asked.tests) for name, threads in chosen]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
