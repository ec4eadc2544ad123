"""Prompts that are longer than what reaches their encoder: a warning that counts them."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from fewstep.backbones.protocol import ModelAdapter

_logger = logging.getLogger(__name__)
_PROMPTS_PER_CALL = 1024


def warn_of_cut_prompts(adapter: ModelAdapter, pipeline: Any, prompts: Sequence[str]) -> None:
    """Say once per tokenizer how many prompts are longer than what reaches its encoder."""
    told: set[tuple[int, int]] = set()
    for tokenizer, limit in zip(adapter.get_tokenizers(pipeline), adapter.token_limits(pipeline), strict=True):
        cut = sum(length > limit for length in _token_counts(adapter, tokenizer, prompts))
        if cut and (cut, limit) not in told:  # two encoders behind equal tokenizers cut the same prompts
            told.add((cut, limit))
            verb = "is" if cut == 1 else "are"
            _logger.warning(
                f"{cut} of {len(prompts)} prompts {verb} longer than {limit} tokens and {verb} cut "
                f"({type(tokenizer).__name__} of {adapter.config.model})."
            )


def _token_counts(adapter: ModelAdapter, tokenizer: Any, prompts: Sequence[str]) -> Iterator[int]:
    for start in range(0, len(prompts), _PROMPTS_PER_CALL):
        yield from adapter.count_tokens(tokenizer, prompts[start : start + _PROMPTS_PER_CALL])
