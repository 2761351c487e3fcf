"""Long work in parts: what was finished before an interruption is read, not done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from methods.training.checkpoint import written_aside
from methods.training.progress import progress_bar


def in_parts(folder: Path, digest: str, sizes: Sequence[int], make: Callable[[int], bytes], title: str) -> list[bytes]:
    """What `make` returns for each part, by its number; each is kept in `folder` as soon as it is there.

    `digest` says what the parts depend on: those of another one are removed. `sizes`: units of each part, for the progress shown.
    """
    own = folder / digest[:16]
    for other in folder.iterdir() if folder.is_dir() else ():
        if other != own:
            shutil.rmtree(other)
    own.mkdir(parents=True, exist_ok=True)
    paths = [own / f"{number:06d}" for number in range(len(sizes))]
    there = [path.exists() for path in paths]
    bar = progress_bar(sum(sizes), title, sum(size for size, done in zip(sizes, there, strict=True) if done))
    for number, (path, done) in enumerate(zip(paths, there, strict=True)):
        if not done:
            with written_aside(path) as aside:
                aside.write_bytes(make(number))
            bar.update(sizes[number])
    bar.close()
    return [path.read_bytes() for path in paths]
