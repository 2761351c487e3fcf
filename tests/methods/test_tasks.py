"""Tasks: specs by name, files and data set repositories, the views on splits, metrics; and one clear message for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from methods.errors import UserError
from methods.tasks.metrics import compute
from methods.tasks.split import Split, stratified_rows
from methods.tasks.task import ClosedSplit, Task, TaskSpec, load_task, task_names

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes train.tsv and validation.tsv: 40 rows of two columns, or the text that is given."""

    def write(header: str = "sentence\tlabel", train: str | bytes | None = None, validation: str | None = None) -> Path:
        rows = "".join(f"word{row} here\t{row % 2}\n" for row in range(40))
        data = train if isinstance(train, bytes) else f"{header}\n{rows if train is None else train}".encode()
        (tmp_path / "train.tsv").write_bytes(data)
        (tmp_path / "validation.tsv").write_text(header + "\n" + ("held out\t1\nanother\t0\n" if validation is None else validation))
        return tmp_path

    return write


def test_known_tasks_have_a_line_each_and_heads_of_their_own() -> None:
    names = task_names()
    assert {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "trec6", "demo"} <= set(names)
    assert all(line and "\n" not in line for line in names.values())


def test_a_directory_gives_three_splits_with_row_numbers(folder: Folder) -> None:
    task = load_task("sst2", str(folder()))
    assert (task.name, task.head.kind, task.head.labels, task.head.pair) == ("sst2", "classification", 2, False)
    assert task.split_names == ("train", "search", "validation")
    train, search = task.split("train"), task.split("search")
    assert (len(train), len(search), len(task.split("validation"))) == (36, 4, 2)
    assert sorted([*train.ids, *search.ids]) == list(range(40))
    assert all(split.text[place] == f"word{split.ids[place]} here" for split in (train, search) for place in range(len(split)))
    assert (search.labels == search.ids % 2).all()
    assert search.labels.sum() == 2, "half of each class"
    assert train.labels.dtype == np.int64


def test_texts_are_stripped_and_neither_quotes_nor_na_are_touched(folder: Folder) -> None:
    validation = 'NA\t0\n"bare quote \t1\r\nnull \t1\n \u2028 line mark\t0\n'
    split = load_task("sst2", str(folder(validation=validation))).split("validation")
    assert split.text == ("NA", '"bare quote', "null", "line mark")
    assert split.labels.tolist() == [0, 1, 1, 0]


def test_labels_may_be_names_and_integer_names_are_names(folder: Folder) -> None:
    data = folder(validation="a\tpositive\nb\tnegative\nc\t1\n")
    assert load_task("sst2", str(data)).split("validation").labels.tolist() == [1, 0, 1]
    rows = "".join(f"word{row}\t{row % 2 + 1}\n" for row in range(20))
    data = folder(train=rows, validation="a\t2\nb\t1\n")
    own = load_task("stars", str(data), text="sentence", label="label", labels=["1", "2"], metric="f1")
    assert own.split("validation").labels.tolist() == [1, 0]


def test_an_own_regression_task_of_two_texts(folder: Folder) -> None:
    rows = "".join(f"left {row}\tright {row}\t{row / 10}\n" for row in range(50))
    data = folder("a\tb\tscore", rows, "x\ty\t1.5\nz\ty\t-2\n")
    task = load_task("likeness", str(data), text=["a", "b"], label="score", metric=["spearman", "pearson"])
    assert (task.spec.kind, task.head.labels, task.head.pair) == ("regression", 1, True)
    assert task.spec.metrics == ("spearman", "pearson")
    validation = task.split("validation")
    assert validation.text_b == ("y", "y")
    assert validation.labels.dtype == np.float32
    assert validation.labels.tolist() == [1.5, -2.0]
    search = task.split("search").labels
    assert len(search) == 5
    assert search.min() < 2 and search.max() > 3, "rows from the whole range of labels"


def test_mnli_keeps_its_second_validation_split(folder: Folder) -> None:
    rows = "".join(f"left {row}\tright {row}\t{row % 3}\n" for row in range(30))
    data = folder("premise\thypothesis\tlabel", rows, "a\tb\tneutral\n")
    (data / "validation_mismatched.tsv").write_text("premise\thypothesis\tlabel\nc\td\tcontradiction\n")
    task = load_task("mnli", str(data))
    assert task.split_names == ("train", "search", "validation", "validation_mismatched")
    assert task.split("validation_mismatched").labels.tolist() == [2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": "fine\t1\nbroken\n"}, r"train.tsv, line 3: 1 fields; the header has 2 \(sentence, label\)"),
        ({"train": "fine\t1\n\nmore\t0\n"}, r"train.tsv, line 3: 1 fields"),
        ({"train": "fine\t1\nx\ty\t0\n"}, r"train.tsv, line 3: 3 fields"),
        ({"validation": "fine\t1\nbad\t2\n"}, r"validation.tsv, line 3: label '2' in .* allowed: 0 to 1, or negative, positive"),
        ({"validation": "bad\t\n"}, r"validation.tsv, line 2: label ''"),
        ({"validation": "bad\t-1\n"}, r"validation.tsv, line 2: label '-1'"),
        ({"train": "".join(f"word{i}\t1\n" for i in range(20))}, r"train: every row has the label 'positive'; rows of at least two"),
        ({"validation": ""}, r"validation.tsv: no rows; split 'validation' must not be empty"),
        ({"header": "text\tlabel"}, r"train.tsv: the header lacks column 'sentence' of task 'sst2'; found: text, label"),
        ({"header": "sentence,label"}, r"train.tsv: the header lacks .*; found: sentence,label \(columns are separated by tabs\)"),
        ({"header": "sentence\tlabel\tlabel"}, r"the header names label twice"),
        ({"train": b"sentence\tlabel\nfine\t1\ncaf\xe9\t0\n"}, r"train.tsv, line 3: no UTF-8 \(byte 0xe9\)"),
        ({"train": "a\t1\nb\t0\n"}, r"train: 2 rows; at least 10 are needed"),
        ({"train": "same\t1\nsame\t0\n" * 10}, r"only 0 of 2 rows for the search split"),
        ({"train": b""}, r"the header lacks column"),
    ],
)
def test_bad_files_give_one_message_that_names_the_place(folder: Folder, content: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task("sst2", str(folder(**content)))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere' is no directory"):
        load_task("sst2", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"train.tsv: no such file"):
        load_task("sst2", str(tmp_path))


def test_a_regression_label_must_be_finite(folder: Folder) -> None:
    data = folder("sentence1\tsentence2\tlabel", "a\tb\t1.0\nc\td\tnan\n")
    with pytest.raises(UserError, match=r"train.tsv, line 3: label 'nan' in column 'label'; allowed: a finite number"):
        load_task("stsb", str(data))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"missing: task.text, task.label, task.labels, task.metric"),
        ({"text": "t", "label": "l", "metric": "accuracy"}, r"missing: task.labels"),
        ({"text": "t", "label": "l", "labels": ["a", "b"], "metric": "pearson"}, r"metric: 'pearson' does not fit classification"),
        ({"text": "t", "label": "l", "labels": ["a", "b"], "metric": "bleu"}, r"possible: accuracy, f1, matthews"),
        ({"text": "t", "label": "l", "labels": ["a", "a"], "metric": "f1"}, r"at least two different class names"),
        ({"text": ["t", "u", "v"], "label": "l", "labels": ["a", "b"], "metric": "f1"}, r"one or two column names"),
        ({"text": "t", "label": "t", "labels": ["a", "b"], "metric": "f1"}, r"name a column twice"),
    ],
)
def test_an_own_task_must_be_described(tmp_path: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task("mine", str(tmp_path), **given)  # type: ignore[arg-type]


def test_a_known_task_may_be_described_anew(folder: Folder) -> None:
    task = load_task("sst2", str(folder("phrase\tmood")), text="phrase", label="mood", metric="f1")
    assert (task.spec.text, task.spec.labels, task.spec.metric) == (("phrase",), ("negative", "positive"), "f1")


def test_names_without_a_hub_data_set_and_generated_data_of_others() -> None:
    with pytest.raises(UserError, match="no hub data set is known for 'trec6'"):
        load_task("trec6")
    with pytest.raises(UserError, match="demo and likeness are 'generated'"):
        load_task("sst2", "generated")


# --- views ------------------------------------------------------------------------------------------------------------------------


def test_a_restricted_view_opens_what_it_names_alone(folder: Folder) -> None:
    task = load_task("sst2", str(folder()))
    view = task.restricted("train", "search")
    assert view.split_names == ("train", "search")
    assert view.split("train") is task.split("train")
    with pytest.raises(ClosedSplit, match="split 'validation' is closed here; open are train, search") as caught:
        view.split("validation")
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(ClosedSplit):
        view.limited(5, seed=0).split("validation")
    with pytest.raises(ClosedSplit):
        view.restricted("validation")
    with pytest.raises(UserError, match="no split 'test'"):
        view.split("test")
    assert "held out" not in repr(vars(view)), "the rows of a closed split are not held"


def test_a_limit_is_stratified_seeded_and_nested(folder: Folder) -> None:
    task = load_task("sst2", str(folder()))
    small, large = task.limited(10, seed=3), task.limited(20, seed=3)
    assert np.bincount(small.split("train").labels).tolist() == [5, 5]
    assert set(small.split("train").ids) < set(large.split("train").ids) < set(task.split("train").ids)
    assert list(small.split("train").ids) == sorted(small.split("train").ids)
    assert set(small.split("train").ids) != set(task.limited(10, seed=4).split("train").ids)
    assert small.split("search") is task.split("search")
    assert small.split("validation") is task.split("validation")
    assert task.limited(None, seed=0) is task
    assert task.limited(36, seed=0) is task


def test_rare_classes_keep_their_share() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    assert np.bincount(labels[stratified_rows(labels, 100, seed=1)]).tolist() == [90, 9, 1]


def test_digests_follow_the_content_in_every_process(folder: Folder) -> None:
    split = load_task("sst2", str(folder())).split("search")
    code = f"from methods.tasks.task import load_task; print(load_task('sst2', {str(folder())!r}).split('search').digest)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert other.stdout.strip() == split.digest
    changed = Split("search", split.text, None, 1 - split.labels, split.ids)
    paired = Split("search", split.text, split.text, split.labels, split.ids)
    assert len({split.digest, changed.digest, split.take([0]).digest, paired.digest}) == 4


# --- the hub's way, on a local repository -------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data set repository of parquet files whose classes stand in an order of their own."""
    import datasets

    folder = tmp_path / "repository"
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["positive", "negative"])})
    for name, rows in (("train", 30), ("validation", 5)):
        data = {"sentence": [f"{name} {row} " for row in range(rows)], "label": [row % 2 for row in range(rows)]}
        datasets.Dataset.from_dict(data, features=features).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


@pytest.mark.usefixtures("cache")
def test_a_repository_of_parquet_files(repository: Path) -> None:
    task = load_task("sst2", f"hub:{repository}")
    assert [len(task.split(name)) for name in task.split_names] == [27, 3, 5]
    validation = task.split("validation")
    assert validation.text[0] == "validation 0"
    assert validation.labels.tolist() == [1, 0, 1, 0, 1], "classes go by their names"
    with pytest.raises(UserError, match=r"lacks column 'sentence1', 'sentence2' of task 'rte'; found: sentence, label"):
        load_task("rte", f"hub:{repository}")


@pytest.mark.usefixtures("cache")
def test_the_plain_name_hub_goes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GLUE's repository has a configuration per task; a local folder of its name is loaded by the very same call."""
    folder = tmp_path / "nyu-mll" / "glue" / "rte"
    folder.mkdir(parents=True)
    (folder.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: rte\n  data_files:\n  - split: train\n    path: rte/train.csv\n"
        "  - split: validation\n    path: rte/validation.csv\n- config_name: other\n  data_files: rte/train.csv\n---\n"
    )
    for name, rows in (("train", 20), ("validation", 4)):
        lines = [f"premise {name} {row},claim {row},{row % 2}" for row in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["sentence1,sentence2,label", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    assert load_task("rte").split("validation").text_b == ("claim 0", "claim 1", "claim 2", "claim 3")
    assert len(load_task("rte", "hub:nyu-mll/glue:rte").split("train")) == 18
    with pytest.raises(UserError, match=r"the data set 'nyu-mll/glue:nothing' can't be loaded"):
        load_task("rte", "hub:nyu-mll/glue:nothing")


# --- metrics ----------------------------------------------------------------------------------------------------------------------


def spec(metrics: str, labels: str = "no yes") -> TaskSpec:
    names = tuple(metrics.split())
    return TaskSpec("t", ("text",), "label", tuple(labels.split()), names[0], names)


def logits(*predictions: int, classes: int = 2) -> np.ndarray:
    return np.eye(classes)[list(predictions)] * 3 - 1


def test_classification_metrics_by_hand() -> None:
    found = compute(spec("f1 accuracy matthews"), logits(1, 1, 0, 0), np.array([1, 0, 0, 0]))
    assert list(found) == ["f1", "accuracy", "matthews"]
    assert found == pytest.approx({"f1": 2 / 3, "accuracy": 3 / 4, "matthews": 2 / np.sqrt(12)})
    three = compute(spec("f1", "a b c"), logits(0, 1, 1, classes=3), np.array([0, 1, 2]))
    assert three["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_regression_metrics_by_hand() -> None:
    found = compute(spec("spearman pearson", ""), np.array([[1.0], [2.0], [4.0], [3.0]]), np.array([1, 2, 3, 4], dtype=np.float32))
    assert found == pytest.approx({"spearman": 0.8, "pearson": 0.8})
    assert compute(spec("spearman pearson", ""), np.array([1.0, 10.0, 100.0]), np.array([1.0, 2, 3]))["spearman"] == pytest.approx(1)


def test_undefined_metrics_are_zero() -> None:
    assert compute(spec("matthews f1"), logits(0, 0, 0), np.array([0, 1, 0])) == {"matthews": 0.0, "f1": 0.0}
    assert compute(spec("spearman pearson", ""), np.ones((3, 1)), np.array([1.0, 2, 3])) == {"spearman": 0.0, "pearson": 0.0}
    assert compute(spec("accuracy"), np.full((2, 2), np.nan), np.array([0, 0])) == {"accuracy": 0.0}
    with pytest.raises(ValueError, match="expected"):
        compute(spec("accuracy"), np.ones((3, 3)), np.array([0, 1, 0]))


def test_a_task_can_be_made_of_splits_at_hand() -> None:
    split = Split("train", ("a", "b"), None, np.array([0, 1]), np.arange(2))
    assert len(Task(spec("accuracy"), {"train": split}).split("train")) == 2
