"""What several tests share: a tiny backbone on disk, a tiny task, and a small finished run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # clusters of the tests' own, on this machine
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from methods.backbone import Backbone
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from tests.postgresql import running_server

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from methods.corpus.corpus import Corpus

STORE = 80 * 2**20
"""Bytes of the object store of a Ray node."""
WORDS = ["good", "bad", "fine", "poor", "film", "plot", "cast", "song", "not", "very", "the", "a", "is", "was"]


def make_tiny_backbone(folder: Path, **sizes: int) -> Path:
    """A random BERT of two layers with a WordPiece tokenizer of a few words, as transformers saves it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **{**shape, **sizes})).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    return folder


def make_split(name: str, rows: int, seed: int) -> Split:
    """Sentences of three to eight words; the label says whether `good` or `fine` is among them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 9))) for _ in range(rows)]
    labels = np.array([int("good" in t.split() or "fine" in t.split()) for t in texts])
    return Split(name, tuple(texts), None, labels, np.arange(rows))


def make_tiny_task(rows: int = 96) -> Task:
    spec = TaskSpec("tiny", ("text",), "label", ("no", "yes"), "accuracy", ("accuracy",))
    return Task(
        spec, {name: make_split(name, rows if name == "train" else 48, i) for i, name in enumerate(("train", "search", "validation"))}
    )


@pytest.fixture(scope="session")
def tiny_backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def tiny_backbone(tiny_backbone_folder: Path) -> Backbone:
    return Backbone.load(str(tiny_backbone_folder))


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    return make_tiny_task()


def write_text(folder: Path, documents: int = 40, seed: int = 0) -> Path:
    """A text file of short documents of known words, blank lines between them."""
    rng = np.random.default_rng(seed)
    lines = [[" ".join(rng.choice(WORDS, size=rng.integers(6, 14))) for _ in range(3)] for _ in range(documents)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "text.txt"
    path.write_text("\n\n".join("\n".join(document) for document in lines) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Corpus:
    """A corpus of about 1,200 words, a tenth of it for `search`."""
    from methods.corpus.options import CorpusOptions

    folder = tmp_path_factory.mktemp("corpus")
    options = CorpusOptions(name="tiny", data=str(write_text(folder)), search_share=0.1, validation_share=0.1)
    return options.load(tiny_backbone.tokenizer, folder / "packed")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, for whoever asks for one."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head with two processors, to which this process is connected; tests may add nodes. Workers get as much of a busy machine as the
    tests do."""
    ray, utils = pytest.importorskip("ray"), pytest.importorskip("ray.cluster_utils")
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own spelling)
    try:
        made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False})
        ray.init(address=made.address, logging_level="error", log_to_driver=False)
    except Exception as error:  # a machine too busy for Ray's own deadlines, or one without sockets
        pytest.skip(f"no Ray cluster starts here: {error}")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    """A finished run folder of a small experiment on the demo task."""
    import yaml

    import workbench

    folder = tmp_path_factory.mktemp("demo")
    schedule = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}
    experiment = {
        "backbone": str(tiny_backbone_folder),
        "task": {"name": "demo", "data": "generated", "rows": 200, "max_length": 48},
        "teacher": {"schedule": schedule},
        "methods": [{"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "width": schedule, "depth": schedule}],
        "controls": {"truncated_kd": {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}},
        "budgets": [{"name": "small", "max_flops": "250K"}, {"name": "all", "max_flops": "1G"}],
        "cost": {"length": 32, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
    }
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(experiment))
    workbench.run(path, output=folder / "run")
    return folder / "run"
