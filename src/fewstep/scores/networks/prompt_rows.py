"""Prompts as rows of token ids, all of one length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

TOKENIZER_FILE = "tokenizer.json"


class PromptRows:
    """A tokenizer that reads a ``tokenizer.json``.

    Args:
        file: The file.
        length: Longer prompts are cut to it, the end token kept, and shorter ones filled up; None fills up to the
            longest and cuts nothing.
        added: Special tokens behind the tokenizer's own words.
        fill_with_end: Fill up with the row's last token instead of 0. Filling is masked either way; CLIP finds the end
            of a prompt by the first such token.
    """

    def __init__(
        self, file: Path, length: int | None = None, *, added: Sequence[str] = (), fill_with_end: bool = False
    ) -> None:
        from transformers import PreTrainedTokenizerFast

        self.length = length
        self.fill_with_end = fill_with_end
        self._tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(file))
        self._tokenizer.add_tokens(list(added), special_tokens=True)

    @property
    def num_words(self) -> int:
        """How many tokens there are."""
        return len(self._tokenizer)

    def id_of(self, token: str) -> int:
        """The id of one token."""
        found: int = self._tokenizer.convert_tokens_to_ids(token)
        return found

    def rows(self, texts: Sequence[str]) -> tuple[Int[Tensor, "b tokens"], Int[Tensor, "b tokens"]]:
        """Token ids, and a mask that is 0 where a row is filled up."""
        cut = {} if self.length is None else {"truncation": True, "max_length": self.length}
        rows = self._tokenizer(list(texts), padding=False, **cut)["input_ids"]
        length = self.length or max(map(len, rows))
        ids = torch.tensor([[*row, *[row[-1] if self.fill_with_end else 0] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return ids, mask
