"""The knobs of word replacement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from methods.training.options import Options

Source = Literal["auto", "masked_words", "embeddings"]


class AugmentationOptions(Options):
    """Copies of training texts with other words in them; rates are those of TinyBERT's code, which DynaBERT took over.

    `copies`: of each text (0: none at all). The texts of a pair are varied in turn, so that it gives twice as many rows.
    `rate`: the chance of a word to be replaced, by one of its `candidates` with equal chances.
    `source`: where candidates come from. `masked_words`: words of one piece from what a masked language model puts there, words of
    several pieces from their nearest neighbours among word embeddings; `embeddings`: neighbours for all; `auto`: the former where
    the backbone has an output layer for masked words.
    `backbone`: whose (a hub id or a directory); null: the experiment's, with the embeddings of the fine-tuned teacher.
    """

    copies: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0, le=1)] = 0.4
    candidates: Annotated[int, Field(ge=1)] = 15
    source: Source = "auto"
    backbone: Annotated[str, Field(min_length=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0

    def copies_of_a_row(self, pair: bool) -> int:
        """The most rows that are made of one."""
        return self.copies * (2 if pair else 1)
