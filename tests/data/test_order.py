"""The order of prompts depends on the seed and the position, and on nothing else."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fewstep.data.order import prompt_index


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 1000), num_prompts=st.integers(1, 50))
def test_every_epoch_uses_each_prompt_once(seed: int, epoch: int, num_prompts: int) -> None:
    start = epoch * num_prompts
    used = [prompt_index(seed, start + place, num_prompts) for place in range(num_prompts)]
    assert sorted(used) == list(range(num_prompts))


def test_two_epochs_have_different_orders() -> None:
    first = [prompt_index(0, position, 50) for position in range(50)]
    second = [prompt_index(0, position, 50) for position in range(50, 100)]
    assert first != second


def test_two_seeds_have_different_orders() -> None:
    assert [prompt_index(0, position, 50) for position in range(50)] != [
        prompt_index(1, position, 50) for position in range(50)
    ]


def test_the_order_does_not_depend_on_what_was_asked_before() -> None:
    backwards = {position: prompt_index(3, position, 7) for position in reversed(range(100))}
    assert [backwards[position] for position in range(100)] == [prompt_index(3, position, 7) for position in range(100)]


def test_the_order_is_the_same_on_every_machine() -> None:
    # recorded once: a run that is resumed elsewhere, or later, must see the same prompts
    assert [prompt_index(42, position, 10) for position in range(10)] == [2, 9, 7, 0, 8, 1, 3, 4, 6, 5]


def test_each_place_sees_each_prompt_equally_often() -> None:
    first = Counter(prompt_index(0, 4 * epoch, 4) for epoch in range(2000))
    # 500 expected each; 5 standard deviations of a binomial are 97
    assert all(abs(first[prompt] - 500) < 97 for prompt in range(4))
