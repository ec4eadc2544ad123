from hypothesis import given
from hypothesis import strategies as st

from fewstep.distributed.rounds import rounds

batches = st.integers(1, 40)
sizes = st.integers(1, 9)
microbatches = st.one_of(st.none(), st.integers(1, 12))


@given(batches, sizes, microbatches)
def test_every_row_is_handled_once(batch: int, size: int, microbatch: int | None) -> None:
    split = [rounds(batch, rank=rank, size=size, microbatch=microbatch) for rank in range(size)]
    counted = sorted(j for rank in split for part in rank if part.weight for j in part.own)
    assert counted == list(range(batch))


@given(batches, sizes, microbatches)
def test_every_process_makes_the_same_rounds(batch: int, size: int, microbatch: int | None) -> None:
    split = [rounds(batch, rank=rank, size=size, microbatch=microbatch) for rank in range(size)]
    assert len({tuple(part.concurrent for part in rank) for rank in split}) == 1
    assert all(part.own and set(part.own) <= set(part.concurrent) for rank in split for part in rank)


@given(batches, sizes, st.integers(1, 12))
def test_no_process_takes_more_than_a_microbatch(batch: int, size: int, microbatch: int) -> None:
    for rank in range(size):
        assert all(len(part.own) <= microbatch for part in rounds(batch, rank=rank, size=size, microbatch=microbatch))


@given(st.integers(1, 8), st.integers(1, 4), sizes, st.one_of(st.none(), st.integers(4, 12)))
def test_groups_stay_whole_and_every_row_is_handled_once(
    groups: int, group: int, size: int, microbatch: int | None
) -> None:
    batch = groups * group
    split = [rounds(batch, rank=rank, size=size, microbatch=microbatch, group=group) for rank in range(size)]
    parts = [part for rank in split for part in rank]
    assert sorted(j for part in parts if part.weight for j in part.own) == list(range(batch))
    assert all(part.own and part.own.start % group == len(part.own) % group == 0 for part in parts)
    assert microbatch is None or all(len(part.own) <= microbatch for part in parts)
    assert len({tuple(part.concurrent for part in rank) for rank in split}) == 1


def test_shares_are_as_even_as_possible() -> None:
    assert [len(rounds(6, rank=rank, size=4, microbatch=None)[0].own) for rank in range(4)] == [2, 2, 1, 1]


def test_a_process_without_a_row_repeats_one_with_weight_zero() -> None:
    last = rounds(2, rank=3, size=4, microbatch=None)
    assert [(part.own, part.weight) for part in last] == [(range(0, 1), 0.0)]
