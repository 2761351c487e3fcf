"""Run folders, made by hand, of a method that is trained on a corpus."""

from __future__ import annotations

import random
from pathlib import Path

from methods.nasbert.encoding import from_short
from methods.recipe import stage_of
from methods.space import Architecture
from tests.analysis.runs import Folder, costs, right

CORPUS, METHOD = "wikipedia", "nasbert"
BUDGETS = [{"name": "small", "max_flops": "0.5G"}, {"name": "large", "max_flops": "1G"}]
SMALL, LARGE = from_short("E64|128:S3.M|128:S5.F"), from_short("E64|256:S3.M|256:M.F")
HAND_SMALL, HAND_LARGE = from_short("E64|128:M.F|128:M.F"), from_short("E64|192:M.F|192:M.F")
RANDOM_SMALL, RANDOM_LARGE = from_short("E64|128:S7|192:S5.M"), from_short("E64|256:S7|256:S5.M")
GIGAFLOPS = {SMALL: 0.4, LARGE: 0.9, HAND_SMALL: 0.42, HAND_LARGE: 0.96, RANDOM_SMALL: 0.48, RANDOM_LARGE: 0.92}


def two_tasks(path: Path, tasks: tuple[str, ...] = ("sst2", "trec6"), corpus_seed: int | None = None) -> Folder:
    """One seed, two budgets. `scratch` was asked for under `small` alone; no row's FLOPs are another's."""
    run = corpus_folder(path, tasks, corpus_seed)
    with run.on(CORPUS, "log_likelihood"):
        words(run, SMALL, -4.3, -2.6)
        words(run, LARGE, -3.6, -2.2)
        for hand, pretrained in ((HAND_SMALL, -2.8), (HAND_LARGE, -2.4)):
            both(run, "hand-made", hand, pretrained)
        both(run, "scratch", SMALL, -3.3)
        both(run, "hand-made scratch", HAND_SMALL, -3.4)
        both(run, "random", RANDOM_SMALL, -2.9)
        both(run, "random", RANDOM_LARGE, -2.5)
        run.stage(METHOD, "teacher", 10, 1e12)
        run.stage(METHOD, "supernet", 20, 6e12)
        run.stage(METHOD, "shrinking", 5, 1e12)
        for i, which in enumerate(GIGAFLOPS):
            run.stage(METHOD, stage_of("retrain", which), 40, (i + 1) * 1e12)
        for i, which in enumerate((SMALL, HAND_SMALL)):
            run.stage(f"{METHOD} scratch", stage_of("retrain", which), 40, (i + 7) * 1e12)
        for budget, seconds in (("small", 3.0), ("large", 5.0)):
            run.searched(METHOD, budget, 20, seconds, strategy="tables")
    for task in tasks:
        finish(run, task)
    return run


def finish(run: Folder, task: str, seed: int = 0) -> None:
    """Every network on a task; the winner of `large` is 5 points above its hand-made and 8 above its random neighbour."""
    with run.on(task):
        run.control("teacher", Architecture.of("teacher", {"layers": 6}), 0.95, costs(2.0))
        for which, wrong in ((SMALL, 20), (LARGE, 10)):
            for split in ("search", "validation"):
                run.measure(which, 1 - wrong / 100, split, "finished", costs(GIGAFLOPS[which]), seed=seed, correct=right(*range(wrong)))
        for name, which, wrong in (
            ("hand-made", HAND_SMALL, 24), ("hand-made", HAND_LARGE, 15), ("scratch", SMALL, 30), ("hand-made scratch", HAND_SMALL, 34),
            ("random", RANDOM_SMALL, 26), ("random", RANDOM_LARGE, 18),
        ):  # fmt: skip
            for split in ("search", "validation"):
                run.control(name, which, 1 - wrong / 100, costs(GIGAFLOPS[which]), split, seed=seed, correct=right(*range(wrong)))
        for i, which in enumerate(GIGAFLOPS):
            run.stage(METHOD, stage_of("finetune", which), 30, (i + 1) * 1e10, seed)
        for i, which in enumerate((SMALL, HAND_SMALL)):
            run.stage(f"{METHOD} scratch", stage_of("finetune", which), 30, (i + 7) * 1e10, seed)


def words(run: Folder, which: Architecture, assembled: float, pretrained: float, seed: int = 0) -> None:
    """A winner on the corpus: predicted, assembled, and pre-trained on both splits (0.1 better on `search`)."""
    cost = costs(GIGAFLOPS[which])
    estimated(run, which, (assembled + 3.2) / 1.6, assembled, GIGAFLOPS[which], seed)
    run.measure(which, pretrained + 0.1, "search", "finished", cost, seed=seed)
    run.measure(which, pretrained, "validation", "finished", cost, seed=seed)


def estimated(run: Folder, which: Architecture, predicted: float, assembled: float, gigaflops: float, seed: int = 0) -> None:
    run.metric = "negative_loss"
    run.measure(which, predicted, "search", "predicted", costs(gigaflops), seed=seed)
    run.metric = "log_likelihood"
    run.measure(which, assembled, "search", "assembled", costs(gigaflops), seed=seed)


def both(run: Folder, name: str, which: Architecture, quality: float) -> None:
    """A control on the corpus's two splits."""
    run.control(name, which, quality + 0.1, costs(GIGAFLOPS[which]), "search")
    run.control(name, which, quality, costs(GIGAFLOPS[which]))


def sampled(run: Folder, count: int, noise: float, seed: int = 0) -> None:
    """`count` networks drawn from the tables; larger ones are better, but for the noise."""
    rng = random.Random(seed)
    with run.on(CORPUS, "log_likelihood"):
        for i in range(count):
            which = from_short(f"E64|128:{'.'.join(rng.choice(['M', 'F', 'S3', 'S5', 'S7']) for _ in range(6))}|{64 * (i + 1)}:M")
            gigaflops = 0.15 * 10 ** rng.random()
            loss = 1.4 - gigaflops**0.5 + 0.08 * rng.gauss(0, 1)
            estimated(run, which, -loss, -3.2 - 1.6 * loss + noise * rng.gauss(0, 1), gigaflops, seed)


def corpus_folder(path: Path, tasks: tuple[str, ...], corpus_seed: int | None = None) -> Folder:
    corpus = {"name": CORPUS, "data": "text", "seed": corpus_seed}
    return Folder(path, BUDGETS, tasks=[{"name": task} for task in tasks], corpus=corpus)


def logs(path: Path, blocks: int = 3, bins: int = 5, epochs: int = 12, stage: str = "supernet", seed: int = 0) -> None:
    """What the training of a supernet leaves: losses every epoch, and from epoch 4 on the paths alive."""
    folder = path / "corpus" / CORPUS / METHOD / f"seed-{seed}" / stage
    folder.mkdir(parents=True)
    training, rounds = ["epoch,block,loss,relative,probes"], ["epoch,block,bin,alive,ranked,best,mean,worst"]
    for epoch in range(1, epochs + 1):
        for block in range(1, blocks + 1):
            relative = 0.1 * block + 0.7 * 0.75**epoch
            training.append(f"{epoch},{block},{2 * relative:.5f},{relative:.5f},{0.05 + 0.1 * block + 0.7 * 0.8**epoch:.5f}")
            for bin in range(1, bins + 1) if epoch > 3 else ():
                start = 6000 // 4 ** (bin - 1)
                rounds.append(f"{epoch},{block},{bin},{max(start >> (epoch - 3), min(6, start))},40,0.4,0.5,0.7")
    (folder / "training.csv").write_text("\n".join(training) + "\n")
    (folder / "shrinking.csv").write_text("\n".join(rounds) + "\n")
