"""Corpora: splits by whole documents, what is kept on disk, and what a user may get wrong."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from methods.backbone import Backbone
from methods.corpus import documents as documents_module
from methods.corpus.corpus import Corpus
from methods.corpus.masked_words import masked_batches
from methods.corpus.options import CorpusOptions
from methods.errors import UserError
from methods.tasks.task import ClosedSplit
from tests.apart import printed_apart
from tests.conftest import WORDS, write_text

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "search", "validation")
REAL_TEXT, REAL_BACKBONE = ROOT.parent / "shared" / "data" / "wikipedia_featured", ROOT / "backbones" / "minilm-l6"


def load(backbone: Backbone, data: Path | str, folder: Path, **options: Any) -> Corpus:
    shares = {"search_share": 0.1, "validation_share": 0.1, **options}
    return CorpusOptions(name="tiny", data=str(data), **shares).load(backbone.tokenizer, folder)


def tokens_of(corpus: Corpus, split: str, length: int = 3) -> list[int]:
    """All tokens of a split; of length 3 a sequence has one of them."""
    packed = corpus.packed(split, length)
    body: list[int] = packed.batch(range(len(packed)))["input_ids"][:, 1:-1].flatten().tolist()
    return body


def numbered(path: Path, documents: int, blank: str = "\n", start: int = 0) -> list[tuple[str, ...]]:
    """Documents that are different from each other: the number in words, then some others."""
    found = [tuple(WORDS[int(digit)] for digit in f"{number:04d}") * 3 for number in range(start, start + documents)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{' '.join(document[:6])}\n{' '.join(document[6:])}\n{blank}" for document in found))
    return found


def documents_of(corpus: Corpus, split: str, backbone: Backbone) -> list[tuple[str, ...]]:
    text = backbone.tokenizer.convert_ids_to_tokens(tokens_of(corpus, split))
    return [tuple(part.split()) for part in " ".join(text).split("[SEP]")]


def test_no_two_splits_share_a_document(tiny_backbone: Backbone, tmp_path: Path) -> None:
    written = numbered(tmp_path / "text.txt", 60, blank=" \t\n\n")
    corpus = load(tiny_backbone, tmp_path / "text.txt", tmp_path / "packed")
    parts = {split: documents_of(corpus, split, tiny_backbone) for split in SPLITS}
    assert parts["train"] + parts["search"] + parts["validation"] == written
    assert len(parts["validation"]) == 6 and len(parts["search"]) == 6


def test_a_validation_text_of_its_own_is_validation(tiny_backbone: Backbone, tmp_path: Path) -> None:
    train = numbered(tmp_path / "data" / "train.txt", 60)
    validation = numbered(tmp_path / "data" / "validation.txt", 7, start=100)
    corpus = load(tiny_backbone, tmp_path / "data", tmp_path / "packed")
    assert documents_of(corpus, "validation", tiny_backbone) == validation
    assert documents_of(corpus, "train", tiny_backbone) + documents_of(corpus, "search", tiny_backbone) == train
    assert len(documents_of(corpus, "search", tiny_backbone)) == 6


def test_where_no_line_is_blank_every_line_is_a_document(tiny_backbone: Backbone, tmp_path: Path) -> None:
    written = numbered(tmp_path / "text.txt", 40, blank="")
    (tmp_path / "text.txt").write_text("\n\n" + (tmp_path / "text.txt").read_text() + "\n\n")
    corpus = load(tiny_backbone, tmp_path / "text.txt", tmp_path / "packed")
    found = [document for split in SPLITS for document in documents_of(corpus, split, tiny_backbone)]
    assert found == [half for document in written for half in (document[:6], document[6:])]


def test_windows_lines_a_byte_order_mark_and_odd_names_are_read(tiny_backbone: Backbone, tmp_path: Path) -> None:
    written = numbered(tmp_path / "plain.txt", 30)
    odd = tmp_path / "te[x]t *.txt"
    odd.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "plain.txt").read_bytes().replace(b"\n", b"\r\n"))
    corpus = load(tiny_backbone, odd, tmp_path / "packed")
    assert [document for split in SPLITS for document in documents_of(corpus, split, tiny_backbone)] == written


def test_splits_are_the_same_at_every_length(tiny_corpus: Corpus) -> None:
    for split in SPLITS:
        whole = tokens_of(tiny_corpus, split)
        for length in (8, 17):
            body = tokens_of(tiny_corpus, split, length)
            assert body == whole[: len(body)] and len(whole) - len(body) < length - 2


def test_limits(tiny_backbone: Backbone, tmp_path: Path) -> None:
    written = numbered(tmp_path / "text.txt", 60)
    whole = load(tiny_backbone, tmp_path / "text.txt", tmp_path / "packed")
    few = load(tiny_backbone, tmp_path / "text.txt", tmp_path / "packed", sequences=4)
    assert len(few.packed("train", 10)) == 4 and few.packed("search", 10).digest == whole.packed("search", 10).digest
    assert few.packed("train", 10).batch(range(4))["input_ids"].equal(whole.packed("train", 10).batch(range(4))["input_ids"])
    rows = load(tiny_backbone, tmp_path / "text.txt", tmp_path / "packed", rows=3 * 20)
    assert [document for split in SPLITS for document in documents_of(rows, split, tiny_backbone)] == written[:20]


def test_closed_splits_stay_closed(tiny_corpus: Corpus) -> None:
    view = tiny_corpus.restricted("train", "search")
    assert view.packed("search", 12) is tiny_corpus.packed("search", 12) and view.name == "tiny"
    with pytest.raises(ClosedSplit, match="'validation' is closed here; open are train, search"):
        view.packed("validation", 12)
    with pytest.raises(ClosedSplit):
        view.restricted("validation")
    assert len(tiny_corpus.packed("validation", 12))
    with pytest.raises(UserError, match="no split 'test'; there are train, search, validation"):
        tiny_corpus.packed("test", 12)


def test_kept_tokens_are_read_again_and_an_edited_text_makes_new_ones(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = write_text(tmp_path), tmp_path / "packed"
    digests = {split: load(tiny_backbone, path, folder).packed(split, 12).digest for split in SPLITS}
    with monkeypatch.context() as patch:
        patch.setattr(documents_module, "_write", None)
        assert {split: load(tiny_backbone, path, folder).packed(split, 12).digest for split in SPLITS} == digests
        assert load(tiny_backbone, path, folder, search_share=0.2).packed("search", 12).digest != digests["search"]
    assert len(list(folder.iterdir())) == 1
    path.write_text(path.read_text().replace("good", "bad", 1))
    assert load(tiny_backbone, path, folder).packed("train", 12).digest != digests["train"]
    other = copy.deepcopy(tiny_backbone)
    other.tokenizer.add_tokens(["goodbad"])
    assert load(other, path, folder).packed("search", 12).digest == digests["search"]
    assert len(list(folder.iterdir())) == 3


def test_a_stopped_packing_leaves_nothing_and_another_process_may_be_first(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = write_text(tmp_path), tmp_path / "packed"
    mark = documents_module.write_atomically

    def stopped(place: Path, text: str) -> None:
        raise KeyboardInterrupt

    def outrun(place: Path, text: str) -> None:
        monkeypatch.setattr(documents_module, "write_atomically", mark)
        load(tiny_backbone, path, folder).packed("train", 12)
        mark(place, text)

    monkeypatch.setattr(documents_module, "write_atomically", stopped)
    with pytest.raises(KeyboardInterrupt):
        load(tiny_backbone, path, folder).packed("train", 12)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(documents_module, "write_atomically", outrun)
    assert len(load(tiny_backbone, path, folder).packed("train", 12))
    assert len(list(folder.iterdir())) == 1


def test_damaged_tokens_are_refused(tiny_backbone: Backbone, tmp_path: Path) -> None:
    path, folder = write_text(tmp_path), tmp_path / "packed"
    load(tiny_backbone, path, folder).packed("train", 12)
    (tokens,) = folder.glob("*/train.tokens")
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"damaged \(train.tokens has \d+ bytes instead of \d+\); remove the folder"):
        load(tiny_backbone, path, folder).packed("train", 12)
    (tokens.parent / "documents.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load(tiny_backbone, path, folder).packed("train", 12)


def digests(corpus: Corpus) -> list[str]:
    """Of all splits, and of the masked words of one."""
    masks = [batch["labels"].numpy().tobytes() for batch in masked_batches(corpus.packed("search", 12), corpus.masker, 4, seed=5)]
    return [*(corpus.packed(split, 12).digest for split in SPLITS), hashlib.sha256(b"".join(masks)).hexdigest()]


def test_text_and_masks_are_the_same_in_another_process(tiny_backbone: Backbone, tiny_backbone_folder: Path, tmp_path: Path) -> None:
    path = write_text(tmp_path)
    here = digests(load(tiny_backbone, path, tmp_path / "packed"))
    code = (
        "import sys, json\nfrom pathlib import Path\nfrom methods.backbone import Backbone\n"
        "from tests.methods.test_corpus import digests, load\nbackbone, data, folder = sys.argv[1:]\n"
        "print(json.dumps(digests(load(Backbone.load(backbone), data, Path(folder)))))"
    )
    printed = printed_apart(code, str(tiny_backbone_folder), str(path), str(tmp_path / "other"))
    assert json.loads(printed.splitlines()[-1]) == here
    assert [p.name for p in (tmp_path / "packed").iterdir()] == [p.name for p in (tmp_path / "other").iterdir()]


def write_rows(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_data_set_is_a_document_a_row(tiny_backbone: Backbone, tmp_path: Path) -> None:
    folder, packed = tmp_path / "set", tmp_path / "packed"
    written = numbered(tmp_path / "text.txt", 20)
    rows: list[dict[str, Any]] = [{"body": " ".join(document[:6]) + "\n\n" + " ".join(document[6:])} for document in written]
    write_rows(folder, "train", [*rows, {"body": " "}, {"body": None}])
    write_rows(folder, "validation", rows[:3])
    corpus = load(tiny_backbone, f"hub:{folder}", packed, text="body")
    assert documents_of(corpus, "train", tiny_backbone) + documents_of(corpus, "search", tiny_backbone) == written
    assert documents_of(corpus, "validation", tiny_backbone) == written[:3]
    (folder / "train.jsonl").unlink()
    again = load(tiny_backbone, f"hub:{folder}", packed, text="body")
    assert again.packed("train", 12).digest == corpus.packed("train", 12).digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"train": [{"words": "good film"}]}, "corpus.text: the data set has no column 'text'; it has words"),
        ({"train": [{"text": 3}]}, "corpus.text: column 'text' of hub:.* holds 3; a column of texts is needed"),
        ({"validation": [{"text": "good film"}]}, "has no split 'train'; it has validation"),
    ],
)
def test_unfit_data_sets_are_refused(tiny_backbone: Backbone, tmp_path: Path, rows: dict[str, Any], message: str) -> None:
    for split, entries in rows.items():
        write_rows(tmp_path / "set", split, entries)
    with pytest.raises(UserError, match=message):
        load(tiny_backbone, f"hub:{tmp_path / 'set'}", tmp_path / "packed").packed("train", 12)
    assert list((tmp_path / "packed").iterdir()) == []


@pytest.mark.parametrize(
    ("files", "data", "message"),
    [
        ({}, "missing.txt", "corpus.data: there is no .*missing.txt'; a .txt file, a directory with train.txt, hub:NAME or generated"),
        ({"data/validation.txt": b"good"}, "data", "corpus.data: the directory .*data' has no train.txt"),
        ({"text.txt": b""}, "text.txt", "corpus.data: the train text of corpus 'tiny' has no words"),
        ({"text.txt": b" \n\n\t\n"}, "text.txt", "has no words"),
        ({"data/train.txt": b"good\n\nbad\n", "data/validation.txt": b""}, "data", "the validation text of corpus 'tiny' has no words"),
        ({"text.txt": b"good\n\nb\xffd\n"}, "text.txt", r"text.txt, line 3: no UTF-8 \(byte 0xff\); save the file as UTF-8"),
        ({"text.txt": b"good\n\nbad\n"}, "text.txt", "has 2 documents for training; at least 3 are needed, with a blank line"),
        (
            {"text.txt": b"good\n\nbad\n\nfine\n"},
            "text.txt",
            "its split 'train' has 1 tokens; .*length 12 takes 10 .* more text or a",
        ),
        ({}, "hub:", "'hub:' lacks the data set's name"),
        ({}, "hub:nobody/nothing:at-all", "the data set 'nobody/nothing:at-all' can't be read .*train.txt, works without the hub"),
    ],
)
def test_unfit_data_are_refused(tiny_backbone: Backbone, tmp_path: Path, files: dict[str, bytes], data: str, message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tiny_backbone, data if data.startswith("hub:") else tmp_path / data, tmp_path / "packed").packed("train", 12)


def test_a_split_too_small_says_which_share_is(tiny_backbone: Backbone, tmp_path: Path) -> None:
    corpus = load(tiny_backbone, write_text(tmp_path), tmp_path / "packed")
    with pytest.raises(UserError, match=r"split 'search' has \d+ tokens; .* a larger corpus.search_share \(now 0.1\) or a smaller length"):
        corpus.packed("search", 500)
    with pytest.raises(UserError, match="sequences of 2 tokens; at least 3"):
        corpus.packed("train", 2)


def test_a_tokenizer_that_cannot_mask_is_refused(tiny_backbone: Backbone, tmp_path: Path) -> None:
    other = copy.deepcopy(tiny_backbone)
    other.tokenizer.mask_token = None
    with pytest.raises(UserError, match=r"its tokenizer has no \[MASK\]; a corpus needs \[CLS\], \[SEP\], \[MASK\]"):
        load(other, write_text(tmp_path), tmp_path / "packed")


@pytest.mark.parametrize("options", [{"search_share": 0}, {"validation_share": 0.5}, {"sequences": 0}, {"name": "a/b"}, {"name": ".."}])
def test_unfit_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CorpusOptions.model_validate({"name": "a", "data": "a.txt", **options})


def test_options_load_nothing_heavy() -> None:
    code = "import sys, methods.corpus.options\nprint([n for n in ('torch', 'datasets', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"


@pytest.mark.data
@pytest.mark.skipif(not (REAL_TEXT.is_dir() and REAL_BACKBONE.is_dir()), reason="needs wikipedia_featured and backbones/minilm-l6")
def test_real_articles(tmp_path: Path) -> None:
    """The first 20 articles: as many documents, few unknown words, and text that reads as it did."""
    backbone = Backbone.load(str(REAL_BACKBONE))
    articles = (REAL_TEXT / "train.txt").read_text().split("\n\n", 20)[:20]
    (tmp_path / "text.txt").write_text("\n\n".join(articles))
    corpus = load(backbone, tmp_path / "text.txt", tmp_path / "packed")
    tokens = [tokens_of(corpus, split) for split in SPLITS]
    sep, unknown = backbone.tokenizer.sep_token_id, backbone.tokenizer.unk_token_id
    assert sum(part.count(sep) + 1 for part in tokens) == 20 and sum(part.count(unknown) for part in tokens) < 0.001 * sum(map(len, tokens))
    assert all(len(a) > len(b) for a, b in pairwise((tokens[0], tokens[1])))
    first = tokens[0][: tokens[0].index(sep)]
    assert first == [
        i for line in articles[0].split("\n") for i in backbone.tokenizer(line, add_special_tokens=False, verbose=False)["input_ids"]
    ]
    packed = corpus.packed("train", 128)
    assert len(packed) == len(tokens[0]) // 126
