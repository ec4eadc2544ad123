"""What embedding many prompts costs with the embedded encoders: python -m benchmarks.embedding [--prompts 200000]

A csv file of distinct prompts is read, embedded and opened as `fewstep embed` does it. Times are processor time; memory
is the largest that the process ever had, so that what a stage adds is the growth of it.
"""

import argparse
import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.overhead import timed
from fewstep.backbones import create_model_adapter
from fewstep.config.prompt_sources import PromptFile
from fewstep.data.embeddings import EmbeddingCache, open_or_build
from fewstep.data.prompts import load_prompts
from fewstep.embedded.digits.prompts import full_prompts

T = TypeVar("T")
MIB = 2**20
BATCHES, BATCH = 100, 32


def write_prompts(path: Path, count: int) -> None:
    """Distinct prompts of the embedded teacher's words, beside a column of other things."""
    known = [text.split() for text in full_prompts()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "prompt"])
        for number in range(count):
            # the words of four prompts, in the order of the digits of the number
            words, rest = [], number
            for _ in range(4):
                rest, place = divmod(rest, len(known))
                words += known[place]
            writer.writerow([number, f"{' '.join(words)}, {number}"])


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def stage(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Do something, and say what it took."""
    before, started = peak_mib(), time.process_time()
    done = work()
    return done, {
        "cpu_seconds": round(time.process_time() - started, 3),
        "peak_rss_growth_mib": round(peak_mib() - before, 1),
    }


def measure(count: int, folder: Path) -> dict[str, Any]:
    """Read, embed and use ``count`` prompts in ``folder``."""
    path = folder / "prompts.csv"
    write_prompts(path, count)
    adapter = create_model_adapter("fewstep:digits")
    _hide_library_warnings()
    adapter.load_pipeline(**{adapter.network_component: None, "vae": None})  # imports are nobody's stage
    at_start = peak_mib()
    encoding = 0.0

    def add(more: float) -> None:
        nonlocal encoding
        encoding += more

    prompts, read = stage(lambda: load_prompts(PromptFile(path=str(path), column="prompt")))
    with timed(adapter, "encode", add):
        cache, embed = stage(lambda: open_or_build(folder / "cache", adapter, prompts))
    _, use = stage(lambda: use_batches(cache))
    return {
        "prompts": len(prompts),
        "file_mib": round(path.stat().st_size / MIB, 2),
        "start": {"peak_rss_mib": round(at_start, 1)},
        "read": read,
        "embed": {
            **embed,
            "encoders_share": round(encoding / embed["cpu_seconds"], 3),
            "prompts_per_cpu_second": round(len(prompts) / embed["cpu_seconds"]),
            "cache_mib": round(cache.num_bytes / MIB, 1),
        },
        "use": {**use, "batches": BATCHES, "batch": BATCH},
        "peak_rss_mib": round(peak_mib(), 1),
    }


def _hide_library_warnings() -> None:
    """The embedded encoders read six tokens, and the libraries would print each prompt that is longer."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()


def use_batches(cache: EmbeddingCache) -> None:
    """Read batches of prompts from all over the list, as training does."""
    for number in range(BATCHES):
        cache.batch([(number * BATCH + place) * 7919 % len(cache) for place in range(BATCH)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of embedding prompts with the embedded encoders.")
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.prompts, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
