"""Which rows of the global batch a process handles, and when; the union does not depend on the number of processes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Round:
    """One pass of every process through the networks.

    Attributes:
        concurrent: Rows of the global batch that all processes together handle.
        own: Rows of this process, a part of ``concurrent``.
        weight: 1, or 0 for a process without a row of its own, which repeats another's for the sake of equal calls.
    """

    concurrent: range
    own: range
    weight: float


def rounds(batch: int, *, rank: int, size: int, microbatch: int | None, group: int = 1) -> list[Round]:
    """Split the global batch over processes and, within each, over rounds.

    Args:
        batch: Samples per step over all processes.
        rank: Number of this process.
        size: Number of processes.
        microbatch: Most samples of a process per round, at least ``group``; None is all it has.
        group: Rows that stay together, one after another; it divides ``batch``.
    """
    if group > 1:
        whole = rounds(batch // group, rank=rank, size=size, microbatch=microbatch and microbatch // group)
        return [Round(_scaled(each.concurrent, group), _scaled(each.own, group), each.weight) for each in whole]
    per_round = batch if microbatch is None else min(batch, size * microbatch)
    made = []
    for start in range(0, batch, per_round):
        concurrent = range(start, min(start + per_round, batch))
        # as even as possible: the first processes take one row more
        share, rest = divmod(len(concurrent), size)
        first = concurrent.start + rank * share + min(rank, rest)
        own = range(first, first + share + (rank < rest))
        if own:
            made.append(Round(concurrent, own, 1.0))
        else:
            made.append(Round(concurrent, range(start, start + 1), 0.0))
    return made


def _scaled(groups: range, group: int) -> range:
    return range(groups.start * group, groups.stop * group)
