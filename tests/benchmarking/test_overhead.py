"""The table of where a step's time goes names functions by their names: each has to exist and to be called."""

from benchmarks.overhead import PARTS, measure


def test_every_named_part_of_a_step_takes_time() -> None:
    found = measure(updates=1)
    shares = {part: found[f"{part}_share"] for part, _, _ in PARTS}
    assert all(share > 0 for share in shares.values()), shares
