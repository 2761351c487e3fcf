"""How large things are before anything is loaded: a backbone's shape from its configuration, a task's rows and lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean

from methods.backbone import BERT_BASE, ROBERTA_BASE, BackboneConfig
from methods.errors import UserError
from methods.tasks.questions.split import QuestionSplit
from methods.tasks.task import Task
from workbench.experiment import DATA_SEED, TaskOptions

BUILT_IN = {
    **dict.fromkeys(("bert-base-uncased", "google-bert/bert-base-uncased"), BERT_BASE),
    **dict.fromkeys(("roberta-base", "FacebookAI/roberta-base"), ROBERTA_BASE),
}
TRAIN_ROWS = {
    "cola": 8_551, "sst2": 67_349, "mrpc": 3_668, "stsb": 5_749, "qqp": 363_846, "mnli": 392_702, "qnli": 104_743, "rte": 2_490,
    "wnli": 635, "trec6": 5_452, "squad": 87_599,
}  # fmt: skip
PIECES_PER_WORD = 1.2
"""Word pieces that an English word of a benchmark text has on average, roughly; for estimates alone."""


@dataclass(frozen=True)
class TaskSize:
    """`rows`: training rows; `search`: rows of the search split; `length`: mean tokens of a text, `longest` where it is not known."""

    rows: int
    search: int
    length: int
    longest: int
    note: str = ""


def backbone_config(name: str, made: Path | None = None) -> tuple[BackboneConfig, str]:
    """A backbone's shape and what is to be said of where it comes from; nothing but a configuration is read.

    `made`: where the demo's backbone may stand already.
    """
    if name in BUILT_IN and not Path(name).is_dir():
        return BUILT_IN[name], f"backbone {name}: its shape as built in; weights and tokenizer are not looked at"
    if name == "demo" and not (made and (made / "config.json").exists()):
        from methods.tasks.demo_backbone import demo_config

        return demo_config(DATA_SEED), ""
    from transformers import AutoConfig

    place = str(made) if name == "demo" else name
    try:
        return BackboneConfig.from_transformers(AutoConfig.from_pretrained(place), place), ""
    except UserError:
        raise
    except Exception as error:  # huggingface_hub's validation errors have no base of their own that is public
        reason = " ".join((str(error).strip() or type(error).__name__).split())
        raise UserError(f"backbone: {name!r} is neither a directory with config.json nor a hub id at hand ({reason})") from error


def size_of(task: Task, max_length: int) -> TaskSize:
    """From the data: texts are counted in words, which are taken for `PIECES_PER_WORD` pieces each."""
    train = task.split("train")
    if isinstance(train, QuestionSplit):
        return _size_of_questions(task, train, max_length)
    texts = [f"{a} {b}" for a, b in zip(train.text, train.text_b, strict=True)] if train.text_b else train.text
    some = random.Random(DATA_SEED).sample(list(texts), min(2000, len(texts)))
    words = fmean(len(text.split()) for text in some)
    length = min(max_length, round(words * PIECES_PER_WORD) + (3 if train.text_b else 2))
    return TaskSize(len(train), len(task.split("search")), length, max_length)


def _size_of_questions(task: Task, train: QuestionSplit, max_length: int) -> TaskSize:
    """Rows are windows, of which a long context has several."""
    some = random.Random(DATA_SEED).sample(range(len(train)), min(2000, len(train)))
    windows, tokens = 0, 0.0
    for row in some:
        question, context = (PIECES_PER_WORD * len(text.split()) for text in (train.text[row], train.contexts[row]))
        question = 3 + min(question, train.windows.question_length)
        room, shared = max_length - question, train.windows.stride
        mine = 1 + max(0, ceil((context - room) / (room - shared)))
        windows, tokens = windows + mine, tokens + mine * question + context + (mine - 1) * shared
    rows = round(len(train) * windows / len(some))
    note = f"task {task.name}: {len(train):,} training questions in about {rows:,} windows"
    return TaskSize(rows, len(task.split("search")), min(max_length, round(tokens / windows)), max_length, note)


def known_size(options: TaskOptions) -> TaskSize | None:
    """Of a task whose rows are known though its data is not at hand."""
    if options.data != "hub" or options.name not in TRAIN_ROWS:
        return None
    rows = TRAIN_ROWS[options.name]
    search = min(rows // 10, 2000)
    note = f"task {options.name}: {rows:,} rows as published, every text taken as {options.max_length} tokens (an upper bound)"
    return TaskSize(min(rows - search, options.rows or rows), search, options.max_length, options.max_length, note)


def task_size(options: TaskOptions) -> TaskSize:
    """Known, or read from the data."""
    known = known_size(options)
    if known is not None:
        return known
    return size_of(options.load(), options.max_length)
