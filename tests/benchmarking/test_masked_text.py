"""Less text through the real classes of networks, small."""

import pytest
from benchmarks.masked_text import CASES, measure

SMALL = {"num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": 16}
SANA = {"num_cross_attention_heads": 2, "cross_attention_head_dim": 16}


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_of_twenty_tokens_is_asked_with_thirty_two(case: str) -> None:
    changes = SMALL | (SANA if case.startswith("sana") else {})
    found = measure(case, tokens=20, layers=1, repeats=1, changes=changes)
    assert found["tokens"] == {"all": 300, "left": 32}
    assert all(seconds > 0 for part in found["cpu_seconds"].values() for seconds in part.values())
