"""Question answering: files, splits, windows, spans, and SQuAD's metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizer, RobertaConfig, RobertaForQuestionAnswering
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from methods.backbone import Backbone, BackboneConfig
from methods.dynabert.space import full_spec
from methods.errors import UserError
from methods.evaluation import evaluate, weights_digest
from methods.network import Network, SpanOutput, distributions, task_loss
from methods.recipe import Context
from methods.supernet import inputs
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.tasks.questions.answers import CANDIDATES, LONGEST, answer_f1, best_spans, exact_match, scores
from methods.tasks.questions.encoding import EncodedWindows, encode_windows
from methods.tasks.questions.source import Row, from_dataset, make_split
from methods.tasks.questions.split import QuestionSplit, Windows
from methods.tasks.spec import KNOWN, TaskSpec
from methods.tasks.task import Task, load_task
from methods.training.distillation import soft_cross_entropy, soft_divergence
from methods.training.initialisation import load_backbone
from methods.training.options import Schedule
from methods.training.teacher import TeacherOptions, fine_tune_teacher
from tests.conformance.cases import randomise
from tests.conftest import WORDS
from tests.methods.roberta_cases import make_tokenizer
from tests.question_cases import articles, write_articles

SPAN = Head("span", pair=True)
SQUAD = KNOWN["squad"].spec


@cache
def tokenizer(name: str) -> Any:
    if name == "roberta":
        return make_tokenizer()
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?-"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "where", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def questions(*rows: tuple[str, str, str], windows: Windows = Windows(4, 6)) -> QuestionSplit:  # noqa: B008 (frozen)
    """Rows of question, context and an answer that is in it."""
    made = [
        Row(f"row {i}", context, context, question, ((right, context.index(right)),)) for i, (question, context, right) in enumerate(rows)
    ]
    split = make_split("train", made, "here")
    return QuestionSplit(**{**vars(split), "windows": windows})


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task("squad", str(write_articles(tmp_path_factory.mktemp("qa"))), windows=Windows(8, 10))


def test_a_directory_gives_three_splits_by_article(task: Task) -> None:
    assert (task.head, task.spec.metrics, task.spec.kind) == (SPAN, ("answer_f1", "exact_match"), "span")
    train, search, validation = (task.split(name) for name in ("train", "search", "validation"))
    assert (len(train), len(search), len(validation)) == (108, 12, 18)
    assert sorted([*train.ids, *search.ids]) == list(range(120))
    assert isinstance(train, QuestionSplit) and isinstance(search, QuestionSplit)
    assert not set(train.articles) & set(search.articles)
    for split in (train, search):
        for context, (begin, end), right in zip(split.contexts, split.labels, split.answers, strict=True):
            assert context[begin:end] == right[0]


def test_a_limit_keeps_rows_whole_and_a_larger_one_contains_it(task: Task) -> None:
    some, more = (task.limited(rows, 0).split("train") for rows in (10, 20))
    whole = task.split("train")
    assert isinstance(some, QuestionSplit) and isinstance(whole, QuestionSplit)
    assert len(some) == 10 and set(some.ids) < set(more.ids)
    place = {number: row for row, number in enumerate(whole.ids)}
    assert [whole.answers[place[number]] for number in some.ids] == list(some.answers)
    assert some.windows == Windows(8, 10)


def test_the_digest_covers_answers_and_windows() -> None:
    row = ("who", "good bad film", "bad")
    other = QuestionSplit(**{**vars(questions(row)), "answers": (("bad", "bad film"),)})
    found = {
        split.digest
        for split in (questions(row), questions(row, windows=Windows(3, 6)), other, questions(("who", "good bad film", "good")))
    }
    assert len(found) == 4
    assert questions(row).digest == questions(row).digest


def edited(folder: Path, change: Callable[[Any], None]) -> Path:
    data = articles(2, 0)
    change(data["data"])
    (folder / "train.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[1]["paragraphs"][0]["qas"][2].pop("question"), r"train\.json, data\[1\]\.paragraphs\[0\]\.qas\[2\]\.question: Field"),
        (lambda a: a[0].update(paragraphs=3), r"data\[0\]\.paragraphs: Input should be a valid array; the layout of SQuAD v1\.1"),
        (lambda a: a[0]["paragraphs"][1]["qas"][0].update(answers=[]), r"data\[0\]\.paragraphs\[1\]\.qas\[0\]: a question without an answ"),
        (lambda a: a[0]["paragraphs"][1].update(context=" "), r"without a text \(3 of 12 are so\)"),
        (lambda a: a[0]["paragraphs"][0]["qas"][1]["answers"][0].update(text=" "), r"with an empty answer \(1 of 12 are so\)"),
        (lambda a: a.clear(), "no questions; split 'train' must not be empty"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_said_with_its_place(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task("squad", str(edited(tmp_path, change)))


def test_answers_that_are_elsewhere_are_counted(tmp_path: Path) -> None:
    def moved(data: Any) -> None:
        for number in (0, 2):
            answer = data[1]["paragraphs"][1]["qas"][number]["answers"][0]
            answer.update(text="the film", answer_start=1)
        data[1]["paragraphs"][1]["context"] = "so the film " + data[1]["paragraphs"][1]["context"]
        data[1]["paragraphs"][1]["qas"] = data[1]["paragraphs"][1]["qas"][:1] + data[1]["paragraphs"][1]["qas"][2:]

    with pytest.raises(
        UserError, match=r"2 answers are not where .* data\[1\]\.paragraphs\[1\]\.qas\[0\]: 'the film' is not at 1 \(it is at 3\)"
    ):
        load_task("squad", str(edited(tmp_path, moved)))


def test_files_that_are_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no directory; a directory with train\.json"):
        load_task("squad", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"train\.json: no such file; .* train\.json and validation\.json"):
        load_task("squad", str(tmp_path))
    (tmp_path / "train.json").write_text('{"data": [\n')
    with pytest.raises(UserError, match=r"train\.json: Invalid JSON: .* line 2"):
        load_task("squad", str(tmp_path))
    write_articles(tmp_path, train=3)
    with pytest.raises(UserError, match=r"\(questions: articles\) in groups so large that only 0 of 1 rows"):
        load_task("squad", str(tmp_path))


def test_a_data_set_with_its_columns() -> None:
    import datasets

    pairs = [{"text": "bad", "answer_start": 5}, {"text": "bad film", "answer_start": 5}]
    lists = {"text": ["bad", "bad film"], "answer_start": [5, 5]}
    row = {"title": "t", "context": "good bad film", "question": " who "}
    for answers in (pairs, lists):
        data = datasets.Dataset.from_list([{**row, "answers": answers}, {**row, "title": "u", "answers": answers}])
        split = from_dataset(SQUAD, "train", data, "squad")
        assert split.text == ("who", "who") and split.answers[0] == ("bad", "bad film")
        assert split.labels.tolist() == [[5, 8], [5, 8]] and split.articles.tolist() == [0, 1]
    data = datasets.Dataset.from_list([{**row, "answers": {"text": ["bad"]}}])
    with pytest.raises(UserError, match="squad, row 0: column 'answers' holds"):
        from_dataset(SQUAD, "train", data, "squad")


def test_an_own_task_needs_its_metric_alone(tmp_path: Path) -> None:
    folder = str(write_articles(tmp_path))
    assert load_task("own", folder, metric="exact_match").spec.metrics == ("exact_match", "answer_f1")
    assert load_task("squad", folder, metric="exact_match").spec.metric == "exact_match"
    with pytest.raises(UserError, match="'answer_f1' does not fit classification"):
        load_task("own", folder, text=["question", "context"], label="answers", labels=["a", "b"], metric="answer_f1")
    with pytest.raises(UserError, match=r"text: .* the columns of question and context are needed"):
        load_task("own", folder, text="question", metric="answer_f1")


CHARACTERS = st.sampled_from([*"abcz019.,?-  \n", "good ", "film", "É", "ß", "\u200d", "日", "🙂"])


@pytest.mark.parametrize("name", ["bert", "roberta"])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_windows_cover_every_token_and_hold_the_answer(name: str, data: st.DataObject) -> None:
    """An answer of at most `stride` tokens is in a window; what lies between its places is the answer, no character of another token."""
    context = "".join(data.draw(st.lists(CHARACTERS, min_size=1, max_size=80)))
    begin = data.draw(st.integers(0, len(context) - 1))
    right = context[begin : begin + data.draw(st.integers(1, 12))]
    if not right.strip():
        return
    asked = data.draw(st.text("abc é?", max_size=30)) + "?"
    windows = Windows(stride=data.draw(st.integers(0, 9)), question_length=data.draw(st.integers(1, 8)))
    length = windows.question_length + 5 + windows.stride + data.draw(st.integers(0, 8))
    split = make_split("train", [Row("here", "a", context, asked, ((right, begin),))], "here")
    split = QuestionSplit(**{**vars(split), "windows": windows})
    pieces = tokenizer(name)(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    encoded = encode_windows(tokenizer(name), length, split)
    assert encoded.lengths.max() <= length
    inside = [offsets[mask == 1].tolist() for offsets, mask in zip(encoded.offsets, encoded.columns["context_mask"], strict=True)]
    covered = [tuple(place) for window in inside[:1] for place in window]
    for window in inside[1:]:
        assert [tuple(place) for place in window[: windows.stride]] == covered[len(covered) - windows.stride :]
        covered += [tuple(place) for place in window[windows.stride :]]
    assert covered == pieces, "every token, neighbours share `stride`"
    start, end = split.labels[0]
    touched = [place for place in pieces if place[0] < end and place[1] > start]
    held = [row for row, (first, _) in enumerate(encoded.labels) if first]
    if touched and touched[0][0] <= start and touched[-1][1] >= end and len(touched) <= windows.stride:
        assert held
    for row in held:
        first, last = encoded.labels[row]
        offsets = encoded.offsets[row]
        assert (offsets[first][0], offsets[last][1]) == (touched[0][0], touched[-1][1])
        assert split.answers[0][0].strip(" \n\u200d") in context[offsets[first][0] : offsets[last][1]]


def test_positions_by_hand() -> None:
    """`[CLS] is ? [SEP]`, six of the eight words, `[SEP]`; the answer is in the second window alone."""
    split = questions(("is ?", "good bad fine poor film plot cast song", "cast song"), windows=Windows(3, 3))
    encoded = encode_windows(tokenizer("bert"), 11, split)
    assert isinstance(encoded, EncodedWindows)
    assert encoded.labels.tolist() == [[0, 0], [7, 8]]
    assert encoded.columns["token_type_ids"][1].tolist() == [0] * 4 + [1] * 6, "three words shared, two new ones"
    assert encoded.answers(np.array([[3.0, 4, 4], [5.0, 7, 7]], dtype=np.float32)) == ["cast"]
    assert encoded.answers(np.array([[-np.inf, 0, 0]] * 2, dtype=np.float32)) == [""]
    batch = joint(tokenizer("bert"), 11)(encoded, [1, 0])
    assert batch["labels"].tolist() == [[7, 8], [0, 0]] and batch["example_id"].tolist() == [0, 0]
    assert batch["context_mask"].sum(1).tolist() == [5, 6]


def test_long_questions_are_cut_and_windows_need_room() -> None:
    split = questions(("where is the good film and the bad plot", "good bad", "bad"), windows=Windows(2, 3))
    encoded = encode_windows(tokenizer("bert"), 12, split)
    assert len(encoded) == 1 and (encoded.columns["token_type_ids"][0] == 0).sum() == 3 + 2
    with pytest.raises(UserError, match=r"max_length: 9 leaves no room .* question_length 3 and stride 2 at least 10 is needed"):
        encode_windows(tokenizer("bert"), 9, split)


@pytest.mark.parametrize(
    ("answer", "right", "f1", "match"),
    [
        ("the Eiffel Tower", "Eiffel tower.", 1.0, 1.0),
        ("a b", "b c", 2 / 3, 0.0),  # "a" is an article: one word of which one is right, one of two found
        ("Paris in France", "Paris", 0.5, 0.0),
        ("to be or not to be", "to be to", 2 * 3 / (6 + 3), 0.0),  # bags: two "to", one "be" in common
        ("co-operate", "cooperate", 1.0, 1.0),
        ("1,000", "1000", 1.0, 1.0),
        ("", "Paris", 0.0, 0.0),
        ("the", "an", 0.0, 1.0),  # nothing is left of both: SQuAD v1.1's F1 is 0 there
        ("there", "the re", 0.0, 0.0),
    ],
)
def test_official_metrics_by_hand(answer: str, right: str, f1: float, match: float) -> None:
    assert answer_f1(answer, right) == pytest.approx(f1)
    assert exact_match(answer, right) == match
    assert scores(answer, ["nothing like it", right]) == (pytest.approx(f1), match)


def test_the_best_right_answer_counts_for_each_metric_alone() -> None:
    assert scores("a big red dog", ["dog", "red dog barks", "big red dog"]) == (1.0, 1.0)
    assert scores("red dog", ["dog", "big red dog"]) == (pytest.approx(0.8), 0.0)


def as_run_qa(start: Any, end: Any, context: Any) -> tuple[float, int, int] | None:
    """The loops of transformers' run_qa on one window: n-best starts and ends, then the pairs that are allowed."""
    found = []
    for first in np.argsort(start)[-1 : -CANDIDATES - 1 : -1].tolist():
        for last in np.argsort(end)[-1 : -CANDIDATES - 1 : -1].tolist():
            if context[first] and context[last] and first <= last < first + LONGEST:
                found.append((start[first] + end[last], first, last))
    return max(found) if found else None


@given(st.integers(1, 90), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_spans_are_run_qas(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, length, 2)).astype(np.float32)
    context = rng.random((3, length)) < rng.choice([0.1, 0.9])
    found = best_spans(torch.from_numpy(logits), torch.from_numpy(context.astype(np.int64)))
    for window in range(3):
        expected = as_run_qa(logits[window, :, 0], logits[window, :, 1], context[window])
        if expected is None:
            assert found[window, 0] == -torch.inf
        else:
            assert found[window].tolist() == [pytest.approx(float(expected[0])), *expected[1:]]


def test_no_span_from_logits_that_are_no_numbers() -> None:
    logits = torch.full((1, 5, 2), torch.nan)
    assert best_spans(logits, torch.ones(1, 5))[0, 0] == -torch.inf


def test_gold_positions_are_worth_one_and_others_nothing(task: Task) -> None:
    collate = joint(tokenizer("bert"), 32)
    for split in (task.split("train"), task.split("validation")):
        assert len(collate.encode(split)) > len(split), "some contexts are long"

        def gold(batch: Any, height: float = 9.0) -> SpanOutput:
            logits = torch.zeros(*batch["input_ids"].shape, 2).scatter(1, batch["labels"][:, None], height)
            return SpanOutput(logits=logits)

        found = evaluate(gold, collate, split, task.spec)
        assert found.metrics == {"answer_f1": 1.0, "exact_match": 1.0}
        assert found.logits.shape == (len(split), 2) and found.ids.tolist() == split.ids.tolist()
        broken = evaluate(lambda batch: gold(batch, torch.nan), collate, split, task.spec)
        assert broken.metrics["answer_f1"] < 0.5


def output(network: Network, batch: dict[str, Tensor]) -> SpanOutput:
    found = network(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"), labels=batch["labels"])
    assert isinstance(found, SpanOutput) and isinstance(found, QuestionAnsweringModelOutput)
    return found


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_outputs_and_loss_are_transformers(family: str) -> None:
    words = tokenizer(family)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 66}
    common = {"vocab_size": len(words), **sizes, "attn_implementation": "eager"}
    model: Any = (
        BertForQuestionAnswering(BertConfig(**common))
        if family == "bert"
        else RobertaForQuestionAnswering(RobertaConfig(**common, type_vocab_size=1, pad_token_id=1))
    ).eval()
    randomise(model, 0)
    network = Network(full_spec(BackboneConfig.from_transformers(model.config, family), SPAN)).eval()
    load_backbone(network, {name.removeprefix(f"{family}."): tensor for name, tensor in model.state_dict().items()})
    network.head.load_state_dict({f"classifier.{name}": tensor for name, tensor in model.qa_outputs.state_dict().items()})
    rows = [("where is good ?", "the film is good , bad", "good"), ("is it", "a song . a very , very bad plot was not fine", "bad plot")]
    encoded = (collate := joint(words, 40)).encode(questions(*rows))
    for chosen in ([0], [1], [0, 1]):
        batch = collate(encoded, chosen)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        with torch.no_grad():
            theirs = model(**inputs, start_positions=batch["labels"][:, 0], end_positions=batch["labels"][:, 1])
            ours = output(network, batch)
        real = batch["attention_mask"].bool()
        for mine, other in ((ours.start_logits, theirs.start_logits), (ours.end_logits, theirs.end_logits)):
            assert mine is not None and torch.allclose(mine[real], other[real], atol=1e-5)
        if len(chosen) == 1:  # without padding, of which transformers takes part in the softmax
            assert torch.allclose(ours.loss, theirs.loss, atol=1e-5)


def test_losses_are_means_of_start_and_end_and_know_no_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 7, 2, generator=generator) for _ in range(2))
    labels = torch.tensor([[1, 2], [0, 0], [6, 6]])
    by_hand = (F.cross_entropy(student[..., 0], labels[:, 0]) + F.cross_entropy(student[..., 1], labels[:, 1])) / 2
    assert torch.allclose(task_loss(SPAN, student, labels), by_hand)
    soft = sum(soft_cross_entropy(student[..., side], teacher[..., side]) for side in (0, 1)) / 2
    assert torch.allclose(soft_cross_entropy(distributions(SPAN, student), distributions(SPAN, teacher)), torch.as_tensor(soft))
    longer = [F.pad(logits, (0, 0, 0, 4), value=torch.finfo(torch.float32).min).requires_grad_() for logits in (student, teacher)]
    for temperature in (0.5, 1.0, 4.0):
        own = soft_divergence(distributions(SPAN, student), distributions(SPAN, teacher), temperature)
        padded = soft_divergence(*(distributions(SPAN, logits) for logits in longer), temperature)
        assert torch.allclose(own, padded, atol=1e-6)
        (gradient,) = torch.autograd.grad(padded, longer[0])
        assert gradient.isfinite().all() and not gradient[:, 7:].any()


def test_a_teacher_learns_to_answer(tiny_backbone: Backbone, tmp_path: Path) -> None:
    """Where the answer is the one song, in contexts of up to three windows; a stage that is read back gives the same network."""
    rng = np.random.default_rng(0)
    said = [word for word in WORDS if word not in ("a", "the", "song")]
    contexts = [rng.choice(said, size=40).tolist() for _ in range(120)]
    for words in contexts:
        words[rng.integers(len(words))] = "song"
    split = questions(*((" what is it", " ".join(words), "song") for words in contexts), windows=Windows(6, 5))
    task = Task(SQUAD, {"train": split.take(range(100)), "search": split.take(range(100, 120), "search")})
    context = Context(tmp_path, tiny_backbone, task, 0, max_length=24)
    options = TeacherOptions(schedule=Schedule(epochs=6, batch_size=16, learning_rate=0.01))
    network = fine_tune_teacher(context, options)
    found = evaluate(lambda batch: network(**inputs(batch)), joint(tiny_backbone.tokenizer, 24), task.split("search"), SQUAD)
    assert found.metrics["exact_match"] > 0.9
    assert weights_digest(fine_tune_teacher(context, options)) == weights_digest(network)


def test_a_task_with_spans_is_no_other() -> None:
    assert TaskSpec("t", ("q", "c"), "a", (), "answer_f1", ("answer_f1",)).head == SPAN
    with pytest.raises(UserError, match="'spearman' does not fit span"):
        TaskSpec("t", ("q", "c"), "a", (), "answer_f1", ("answer_f1", "spearman"))
