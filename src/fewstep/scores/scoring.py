"""Put a metric to work: its networks are in memory only while it looks at pictures."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from fewstep.scores.metric import Metric, Picture


@contextmanager
def loaded(metric: Metric, device: torch.device) -> Iterator[None]:
    """The metric's networks on ``device`` inside the block, and nowhere after it."""
    try:
        metric.load(device)
        yield
    finally:
        metric.unload()
        gc.collect()


def measure(metric: Metric, pictures: Sequence[Picture], device: torch.device) -> dict[str, float]:
    """A metric's figures of some pictures.

    Raises:
        MetricError: A picture cannot be scored.
    """
    size = metric.settings.batch
    with loaded(metric, device):
        batches = (pictures[start : start + size] for start in range(0, len(pictures), size))
        findings = [finding for batch in batches for finding in metric.examine(batch)]
        return metric.conclude(pictures, findings)
