"""What an experiment file says of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from methods.training.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from methods.corpus.corpus import Corpus

Share = Annotated[float, Field(gt=0, lt=0.5)]
Count = Annotated[int, Field(ge=1)]


class CorpusOptions(Options):
    """Unlabelled text and its splits.

    `name`: its folder's, in the run folder. `data`: a .txt file, a directory with train.txt and optionally validation.txt, or
    `hub:NAME[:CONFIGURATION]` (a data set on the hub, or a local data set folder), whose column `text` is read, or `generated` (about
    300,000 words in the language of the demo). In a file a blank line is the border of two documents; where there is none, every line is
    a document, as every row of a hub data set is.
    `rows`: at most so many lines or rows of train are read (null: all). `sequences`: at most so many training sequences (null: all).
    `search_share`: of train, whole documents set apart from its end as held-out text that may choose. `validation_share`: likewise for
    the text that is only reported, where the data bring none. Each has at least 510 tokens, a sequence of BERT's longest, unless that
    is more than a tenth of the text. `seed`: null trains a supernet for every seed of the run; a number trains one, of that seed, for all.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    data: str
    text: str = "text"
    rows: Count | None = None
    sequences: Count | None = None
    search_share: Share = 0.02
    validation_share: Share = 0.02
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None

    def load(self, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Corpus:
        """The corpus; text is read and tokenised at first use, and its tokens kept in `folder` for the next time.

        Raises UserError where nothing of that name is there or the tokenizer can't mask.
        """
        from methods.corpus.corpus import open_corpus

        return open_corpus(self, tokenizer, folder)
