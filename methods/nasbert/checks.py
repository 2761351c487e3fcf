"""What would fail hours later, seen from the options, the space and the backbone alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from methods.additive import LARGEST_HALF, most_rows
from methods.errors import UserError
from methods.nasbert.inherit import check_embedding
from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import check_count
from methods.nasbert.plan import occupancy_of
from methods.nasbert.space import NasBertSpace
from methods.nasbert.survivors import check_bins

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig


def check_options(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig, variants: Sequence[str]) -> None:
    """`variants`: the other starts of pre-training that are asked for. Raises UserError for the first mistake, by its key."""
    check_count(space)
    if "inherit" in (options.retrain.start, *variants):
        check_embedding(max(space.embedding_sizes), backbone.hidden)
    occupancy = occupancy_of(options, space, backbone)
    check_bins(options, occupancy)
    check_tables(options, space.blocks, occupancy)


def check_tables(options: NasBertOptions, blocks: int, occupancy: Sequence[int]) -> None:
    """Raises UserError where the block loss tables would have too many rows to be searched exactly (paper, section 3.4)."""
    o = options.shrinking
    rows, most = sum(min(o.kept, n) for n in occupancy), most_rows(blocks)
    if rows > most:
        raise UserError(
            f"nasbert: shrinking.kept: {o.kept} in shrinking.bins: {o.bins} leaves {rows} paths of each of {blocks} blocks, and the exact"
            f" search lists all combinations of half of the blocks, at most {LARGEST_HALF:,}: {most} paths of each; lower shrinking.kept"
            " or shrinking.bins, or choose fewer blocks"
        )
