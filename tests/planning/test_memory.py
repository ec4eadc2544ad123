"""Predicted memory is what real training steps take, and follows the settings that change it."""

import pytest
import torch

from fewstep.config import load_recipe
from fewstep.planning.live import LiveStorage
from fewstep.planning.measured import compared, predicted_peak
from fewstep.planning.memory import predict, split
from fewstep.planning.planned_roles import PlannedRoles
from tests.planning.real_steps import adapter_of, config_of, measured_peak

LORA = ["student.weights={kind: lora, rank: 8}", "fake_score.weights={kind: lora, rank: 8}"]
CHECKPOINTING = ["memory.gradient_checkpointing=true"]
PLAIN = ["memory.gradient_checkpointing=false"]
SIZES = {"tiny": (2, 2), "medium": (4, 4)}
SETTINGS = {
    "full": PLAIN,
    "full with checkpointing": CHECKPOINTING,
    "full in microbatches": [*PLAIN, "memory.microbatch=1"],
    "full in microbatches with kept graphs": [*PLAIN, "memory.microbatch=1", "memory.keep_anchor_graph=true"],
    "full in single calls": [*PLAIN, "memory.batch_frozen_calls=false", "memory.keep_anchor_graph=false"],
    "full with own anchors": [*PLAIN, "simulation.anchors=own", "simulation.step=renoise"],
    "full with companions": [*PLAIN, "terms.dp={steps: 2}", "terms.isg={}"],
    "lora": [*PLAIN, *LORA],
    "lora with checkpointing": [*CHECKPOINTING, *LORA],
    "full with a teacher in bf16": [*PLAIN, "precision.frozen=bf16"],
    "lora on a base in bf16": [*CHECKPOINTING, *LORA, "precision.frozen=bf16"],
    "bf16": ["precision.compute=bf16", "memory.gradient_checkpointing=selective"],
    "full with moments in 8 bits": [*CHECKPOINTING, "student.moments=8bit", "fake_score.moments=8bit"],
}
# the tiny network has every setting; a larger one repeats them
CASES = [
    pytest.param(size, name, marks=[pytest.mark.slow] if size == "medium" else [])
    for size in SIZES
    for name in SETTINGS
]


@pytest.mark.parametrize(("size", "name"), CASES)
def test_the_prediction_is_within_a_tenth_of_real_steps(size: str, name: str) -> None:
    config = config_of(*SETTINGS[name])
    layers, heads = SIZES[size]
    adapter = adapter_of(config, layers=layers, heads=heads)
    predicted = predict(config, PlannedRoles(config, adapter), processes=1, accelerator=False)
    if "8 bits" in name:
        pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'fewstep[quantised]'")
    assert predicted.peak == pytest.approx(measured_peak(config, adapter), rel=0.1), predicted


def test_gathering_ahead_is_counted() -> None:
    """Further blocks of the network that computes, and the first ones of those that are asked next."""
    planned = {ahead: config_of(f"memory.prefetch={ahead}", *CHECKPOINTING) for ahead in ("null", "1", "3")}
    roles = PlannedRoles(planned["null"], adapter_of(planned["null"], layers=4, heads=8))
    gathered = {ahead: predict(config, roles, processes=2).parts["gathered"] for ahead, config in planned.items()}
    size = roles.spread("teacher", 2)
    assert gathered["3"] - gathered["1"] >= 2 * size.block
    assert gathered["1"] >= gathered["null"]
    alone = [predict(config, roles, processes=1).peak for config in planned.values()]
    assert len(set(alone)) == 1


def test_a_storage_counts_once_and_until_it_is_garbage() -> None:
    with LiveStorage([]) as live:
        first = torch.empty(256, dtype=torch.float32)
        second = first.view(16, 16).t() + 1
        assert live.now == 2048
        del first
        assert (live.now, live.peak) == (1024, 2048)
        second.untyped_storage().resize_(0)
        del second
        assert live.now == 0


def test_what_was_there_before_counts_when_asked() -> None:
    there = torch.empty(256)
    with LiveStorage([there], count_known=True) as live:
        there.add_(1)
    assert (live.now, live.peak) == (1024, 1024)


def test_what_an_operation_only_looks_into_is_not_counted() -> None:
    mapped = torch.zeros(10_000)  # as a file of embeddings
    with LiveStorage([]) as live:
        row = mapped[10:20]
        assert live.now == 0
        longer = row + 1
        assert live.now == longer.nbytes


def test_the_batch_is_dealt_out_as_training_deals_it() -> None:
    config = load_recipe("sd3-medium", ["memory.microbatch=3"]).config
    dealt = split(config, 8)
    assert (dealt.shards, dealt.rows, dealt.micro, dealt.rounds) == (8, 16, 3, 6)


def test_groups_of_samples_are_dealt_out_whole() -> None:
    config = load_recipe("sd3-medium", ["memory.microbatch=7", "terms.dm.normalise_over=4"]).config
    dealt = split(config, 8)
    assert (dealt.rows, dealt.micro, dealt.rounds) == (16, 4, 4)


def test_copies_of_the_weights_leave_each_process_more_of_them() -> None:
    assert split(load_recipe("sd3-medium", ["parallel.replicate=4"]).config, 8).shards == 2


def test_a_backbone_of_another_package_has_no_prediction() -> None:
    assert compared(None, 3 * 2**30) == "Peak memory of tensors: 3.00 GiB measured; this backbone has no prediction."


def test_the_sentence_of_a_run_says_both_and_the_difference() -> None:
    assert compared(1.1 * 2**30, 2**30) == "Peak memory of tensors: 1.10 GiB predicted, 1.00 GiB measured (+10%)."


def test_the_embedded_teacher_can_be_predicted() -> None:
    peak = predicted_peak(load_recipe("digits").config, processes=1, device=torch.device("cpu"))
    assert peak is not None
    assert 2**20 < peak < 2**30
