"""Which teacher layer teaches which student layer: one function, for training and for use."""

from __future__ import annotations


def teacher_layer(i: int, cells: int, layers: int) -> int:
    """The teacher layer 0..`layers` of student layer i in 0..`cells`: round(i J / K), halves upwards (paper).

    Layer 0 is the embedding on both sides, and the last student layer always has the teacher's last.
    """
    if not 0 <= i <= cells or cells < 1:
        raise ValueError(f"student layer {i} of {cells}: layers go from 0 to the number of cells")
    return (2 * i * layers + cells) // (2 * cells)
