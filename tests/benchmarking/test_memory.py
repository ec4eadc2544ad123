"""The comparison of peaks measures both formulations and the prediction."""

import pytest
from benchmarks.memory import peaks
from benchmarks.networks import Size


def test_both_peaks_are_measured_and_ours_is_what_was_predicted() -> None:
    found = peaks(Size(layers=2, heads=1, latent_side=4, text_width=64), batch=2, checkpointing="true")
    assert found["ours"] == pytest.approx(found["predicted"], rel=0.1)
    assert found["plain"] > 0
    assert sum(found["parts"].values()) == pytest.approx(found["predicted"], abs=len(found["parts"]))
