"""What an adapter makes of prompts is what its stock pipeline tells the network."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.testing.case import PROMPTS, Case
from fewstep.testing.closeness import additions, assert_rounded_alike


class Prompts:
    def test_what_is_encoded_reaches_the_network_in_the_stock_call(self, case: Case) -> None:
        cond, _ = case.conditioning()
        _assert_among(cond, _told(case, PROMPTS))

    def test_the_null_prompt_reaches_the_network_in_the_stock_call(self, case: Case) -> None:
        _, null = case.conditioning()
        if case.adapter.guidance.embedded:
            _assert_among(null, _told(case, [case.adapter.guidance.null_prompt]))
        else:
            _assert_among(null, _told(case, PROMPTS, guidance_scale=case.guided))

    def test_the_shapes_of_a_prompt_are_those_of_what_is_encoded(self, case: Case) -> None:
        shapes = case.adapter.prompt_shapes()
        for cond in case.conditioning():
            assert shapes == {
                name: PromptTensor(tuple(value.shape[1:]), None if value.is_floating_point() else value.dtype)
                for name, value in cond.tensors.items()
            }

    def test_encoding_leaves_the_list_of_prompts_as_it_was(self, case: Case) -> None:
        prompts = list(PROMPTS)
        case.adapter.encode(case.pipeline, prompts)
        assert prompts == list(PROMPTS), "give the pipeline a copy: list(prompts)"

    def test_encoding_needs_neither_the_network_nor_the_vae(self, case: Case) -> None:
        left_out: dict[str, Any] = {case.adapter.network_component: None, "vae": None}
        text_only = case.adapter.load_pipeline(**left_out)
        alone = case.adapter.encode(text_only, PROMPTS)
        whole, _ = case.conditioning()
        terms = sum(additions(encoder) for encoder in case.adapter.get_text_encoders(text_only))
        for name, expected in whole.tensors.items():
            assert_rounded_alike(alone.tensors[name], expected, terms=terms)


def _told(case: Case, prompts: Sequence[str], **changes: Any) -> list[Tensor]:
    """Every tensor that reaches the network in the stock call, and every row of it."""
    seen: list[Tensor] = []

    def remember(module: Any, arguments: Any, options: Any) -> None:
        seen.extend(_tensors((arguments, options)))

    network = getattr(case.pipeline, case.adapter.network_component)
    hook = network.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        case.stock(prompts=prompts, **changes)
    finally:
        hook.remove()
    # pipelines give a batch, or a list with a tensor for each prompt
    return [part for tensor in seen if tensor.ndim for part in (tensor, *tensor)]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _assert_among(cond: Conditioning, found: Sequence[Tensor]) -> None:
    """Each row of a conditioning is one of the tensors found, up to zeros behind it and what rounding allows.

    A tensor found may go on behind a row's end, as one does that also tells of the image. Masks of integers are not
    compared: some pipelines give none where nothing is masked, and what they leave out shows in what is drawn.
    """
    for name, batch in cond.tensors.items():
        for row in batch if batch.is_floating_point() else ():
            if row.ndim > 1 and row.any():
                row = row[row.flatten(1).any(dim=1)]  # without padding
            alike = [_fitted(other, row) for other in found if _may_be(other, row)]
            assert alike, f"no tensor that reaches the network has the shape of {name}, {tuple(row.shape)}"
            distances = [float((other - row.float()).abs().max()) for other in alike]
            distance, nearest = min(zip(distances, alike, strict=True), key=itemgetter(0))
            # one batch of prompts here, and theirs with the null prompt there
            same = torch.allclose(row.float(), nearest, rtol=1e-5, atol=1e-6)
            assert same, f"{name} does not reach the network: the nearest tensor of its shape differs by {distance:.3g}"


def _may_be(other: Tensor, row: Tensor) -> bool:
    same_kind = other.is_floating_point() and other.ndim == row.ndim
    return same_kind and len(other) > 0 and other.shape[1:] == row.shape[1:]


def _fitted(other: Tensor, row: Tensor) -> Tensor:
    """As many entries of ``other`` as ``row`` has: its beginning, or of tokens the nearest, since some pad inside."""
    if row.ndim > 1:
        # the way by a product is off by more than what tells neighbours apart
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(row.float().flatten(1), other.float().flatten(1), compute_mode=exact)
        return other[distances.argmin(dim=1)].float()
    return functional.pad(other[: len(row)].float(), (0, max(0, len(row) - len(other))))
