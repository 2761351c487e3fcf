"""The stem: from word pieces to the first hidden state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.layers.part import Part, Piece


@dataclass(frozen=True)
class Stem(Part):
    """word + position (+ type) -> norm -> projection -> norm -> dropout, each step where its size is not 0.

    BERT: `norm_before`, no projection. NAS-BERT hosted: BERT's, then a projection with bias into the first block (its In map);
    deployed: own width, no types. AdaBERT: no norm before, projection without bias, norm after (folded: width d, no projection).
    `zero_padding`: padded positions are zero in the output. `texts`: how many texts run through it (a pair encoded apart: 2).
    `positions`: tokens that a text may have; the table has `position_offset` unread rows before theirs. RoBERTa (offset 2): position
    ids are 2..T+1 for every token, padding included, as in DynaBERT's released code. `transformers` gives padding the padding's row;
    with padding on the right that changes the states of padded positions alone, and no logit. A table of one type: all tokens have it.
    """

    kind: ClassVar[str] = "stem"
    vocabulary: int
    positions: int
    types: int
    width: int
    norm_before: bool = True
    projection: int = 0
    projection_bias: bool = True
    norm_after: bool = False
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    padding_id: int = 0
    zero_padding: bool = False
    texts: int = 1
    position_offset: int = 0

    @property
    def hidden(self) -> int:
        """Width of the output."""
        return self.projection or self.width

    def embedding_parameters(self) -> int:
        return (self.vocabulary + self.position_offset + self.positions + self.types) * self.width

    def other_parameters(self) -> int:
        """`projection` may be an array; where it is 0 there is no projection."""
        projection = self.projection * self.width + (self.projection if self.projection_bias else 0)
        return projection + (2 * self.width if self.norm_before else 0) + (2 * self.hidden if self.norm_after else 0)

    def flops(self, length: int) -> int:
        return 2 * self.texts * length * self.width * self.projection

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:
        """Once for each text."""
        return self.texts * (Piece(replace(self, texts=1), width or self.width, "stem"),)

    def build(self) -> StemModule:
        return StemModule(self)


class StemModule(nn.Module):
    def __init__(self, spec: Stem) -> None:
        super().__init__()
        self.word = nn.Embedding(spec.vocabulary, spec.width, padding_idx=spec.padding_id)
        self.position_offset = spec.position_offset
        self.position = nn.Embedding(spec.position_offset + spec.positions, spec.width)
        self.token_type = nn.Embedding(spec.types, spec.width) if spec.types else None
        self.norm_before = nn.LayerNorm(spec.width, eps=spec.layer_norm_eps) if spec.norm_before else None
        self.projection = nn.Linear(spec.width, spec.projection, bias=spec.projection_bias) if spec.projection else None
        self.norm_after = nn.LayerNorm(spec.hidden, eps=spec.layer_norm_eps) if spec.norm_after else None
        self.dropout = nn.Dropout(spec.dropout)
        self.zero_padding = spec.zero_padding

    def forward(self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None = None, inputs_embeds: Tensor | None = None) -> Tensor:
        """`input_ids`, `mask`, `token_type_ids` (B, L); returns (B, L, hidden). Positions count from `position_offset`.

        `inputs_embeds` (B, L, width): what `word` gives for the ids, where they were looked up before.
        """
        words: Tensor = self.word(input_ids) if inputs_embeds is None else inputs_embeds
        hidden = words + self.position.weight[self.position_offset :][: input_ids.shape[1]]
        if self.token_type is not None:
            alike = token_type_ids is None or self.token_type.num_embeddings == 1
            hidden = hidden + self.token_type(torch.zeros_like(input_ids) if alike else token_type_ids)
        for step in (self.norm_before, self.projection, self.norm_after, self.dropout):
            if step is not None:
                hidden = step(hidden)
        return hidden * mask[..., None].to(hidden.dtype) if self.zero_padding else hidden
