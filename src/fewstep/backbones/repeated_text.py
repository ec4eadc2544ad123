"""Text tokens that are all alike go through a joint attention network as one that counts for all of them.

Equal tokens have equal queries, keys and values in every layer. So n of them are one whose score is higher by log n,
and the gradient of that one is the sum of theirs: nothing changes but the number of tokens.
"""

import math
from typing import Any

import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def count_last(
    network: nn.Module, text: Float[Tensor, "b tokens width"], *, copies: int, image_tokens: int
) -> dict[str, Any]:
    """The ``joint_attention_kwargs`` of a call in which each prompt's last token stands for ``copies`` equal ones.

    Args:
        network: Of the SD3 family; its blocks are told to count, and answer as before in calls without these.
        text: Of every prompt.
        copies: The same for every prompt.
        image_tokens: Of one sample, which stand before the text in attention.
    """
    blocks = network.transformer_blocks
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        attention: Any = block.attn
        if type(attention.processor) is not _Counting:
            attention.processor = _Counting()
    score = torch.zeros(1, 1, 1, image_tokens + text.shape[1], dtype=text.dtype, device=text.device)
    score[..., -1] = math.log(copies)
    return {"attention_mask": score}


class _Counting(JointAttnProcessor2_0):  # type: ignore[misc]
    """Joint attention with scores added for tokens that count more than once."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Any:
        if encoder_hidden_states is None or attention_mask is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states)
        image = _heads(attn.heads, hidden_states, (attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k), attn.to_v)
        text = _heads(
            attn.heads,
            encoder_hidden_states,
            (attn.add_q_proj, attn.norm_added_q),
            (attn.add_k_proj, attn.norm_added_k),
            attn.add_v_proj,
        )
        query, key, value = (torch.cat(parts, dim=2) for parts in zip(image, text, strict=True))
        joined = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask.to(query.dtype))
        joined = joined.transpose(1, 2).flatten(2)
        of_image, of_text = joined[:, : hidden_states.shape[1]], joined[:, hidden_states.shape[1] :]
        if not attn.context_pre_only:
            of_text = attn.to_add_out(of_text)
        return attn.to_out[1](attn.to_out[0](of_image)), of_text


def _heads(
    count: int, tokens: Tensor, query: tuple[Any, Any], key: tuple[Any, Any], value: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one stream, normalised where the network does so: (b, heads, tokens, width)."""

    def split(projected: Tensor) -> Tensor:
        return projected.reshape(*projected.shape[:2], count, -1).transpose(1, 2)

    def normed(project: Any, norm: Any) -> Tensor:
        projected = split(project(tokens))
        normalised: Tensor = projected if norm is None else norm(projected)
        return normalised

    return normed(*query), normed(*key), split(value(tokens))
