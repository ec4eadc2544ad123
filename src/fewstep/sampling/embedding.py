"""Prompts as a model's text encoders see them, for drawing: each embedded once, those that are cut counted once."""

from collections.abc import Sequence
from typing import Any

import torch

from fewstep.backbones.finite import require_finite_encoding
from fewstep.backbones.prompt_lengths import warn_of_cut_prompts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.using import using
from fewstep.core.conditioning import Conditioning
from fewstep.prompts.text import require_prompt, require_prompts

_EMBEDDED_AT_ONCE = 32
"""Prompts per call of the text encoders."""


class PromptEmbedder:
    """The text encoders of a pipeline, and what they have answered.

    Args:
        adapter: The backbone.
        pipeline: A diffusers pipeline that holds the text encoders, on ``device``.
        device: Where the embeddings go.
    """

    def __init__(self, adapter: ModelAdapter, pipeline: Any, device: torch.device) -> None:
        self.adapter = adapter
        self.pipeline = pipeline
        self.device = device
        self._warned: set[str] = set()
        self._expected: dict[str, tuple[str, ...]] = {}
        self._embedded: dict[tuple[str, ...], Conditioning] = {}

    def expect(self, prompts: Sequence[str]) -> None:
        """Prompts that will be drawn: those too long are counted in one warning, and each is embedded once.

        They are embedded ``_EMBEDDED_AT_ONCE`` at a time in this order, whichever are drawn, in which batches and how
        often: encoders round differently for other neighbours.
        """
        self._warn_of_cut(prompts)
        distinct = tuple(dict.fromkeys(require_prompts(prompts)))
        starts = range(0, len(distinct), _EMBEDDED_AT_ONCE)
        chunks = [distinct[start : start + _EMBEDDED_AT_ONCE] for start in starts]
        self._expected = {prompt: chunk for chunk in chunks for prompt in chunk}

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], *, batch: int = _EMBEDDED_AT_ONCE) -> Conditioning:
        """Embed prompts, one row each; a repeated prompt is embedded once."""
        unique = list(dict.fromkeys(require_prompts(prompts)))
        self._warn_of_cut(unique)
        others = [prompt for prompt in unique if prompt not in self._expected]
        chunks = dict.fromkeys(self._expected[prompt] for prompt in unique if prompt in self._expected)
        chunks |= dict.fromkeys(tuple(others[start : start + batch]) for start in range(0, len(others), batch))
        found = {chunk: self._embedded.get(chunk) or self._embed(chunk) for chunk in chunks}
        # pictures are drawn in the order of their prompts: no more than the last chunks are asked for again
        self._embedded = {chunk: rows for chunk, rows in found.items() if chunk[0] in self._expected}
        rows = Conditioning.cat(list(found.values()))
        position = {prompt: index for index, prompt in enumerate(prompt for chunk in chunks for prompt in chunk)}
        return rows.rows(torch.tensor([position[prompt] for prompt in prompts], device=self.device))

    def unconditional(self, negative_prompt: str | None, *, guidance_scale: float) -> Conditioning | None:
        """Embed a negative prompt, or without one the model's unconditional branch; None where guidance is off."""
        if guidance_scale == self.adapter.guidance.off:
            return None
        if negative_prompt is None:
            return self._finite(self.adapter.encode_null(self.pipeline))
        require_prompt(negative_prompt, place="The negative prompt")
        warn_of_cut_prompts(self.adapter, self.pipeline, [negative_prompt])
        return self._finite(self.adapter.encode_negative(self.pipeline, negative_prompt))

    def _warn_of_cut(self, prompts: Sequence[str]) -> None:
        """Count the prompts that are too long for the encoders; each prompt is counted in one warning only."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._warned]
        self._warned.update(new)
        if new:
            with using(self.adapter.config.model, "embed prompts"):
                warn_of_cut_prompts(self.adapter, self.pipeline, new)

    def _embed(self, prompts: Sequence[str]) -> Conditioning:
        return self._finite(self.adapter.encode(self.pipeline, list(prompts)))

    def _finite(self, cond: Conditioning) -> Conditioning:
        return require_finite_encoding(self.adapter, self.pipeline, cond)
