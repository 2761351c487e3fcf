"""Export to ONNX, and the control row of winners with weights of 8 bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import workbench
from analysis.head_to_head import head_to_head
from methods.errors import UserError
from methods.onnx import graph
from methods.tasks.task import load_task
from search.archive import Archive
from search.query import Answer
from workbench.verbs.export import Exported


@pytest.fixture(scope="module")
def exported(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    answer = workbench.query(demo_run, max_flops="250K")
    assert isinstance(answer, Answer)
    return workbench.export(demo_run, answer.architecture.id, tmp_path_factory.mktemp("out") / "network", form="onnx", int8=True)


def logits_of(path: Path, texts: list[str]) -> np.ndarray:
    """One text at a time."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer, session = AutoTokenizer.from_pretrained(path.parent), onnxruntime.InferenceSession(path)
    batches = (tokenizer(text, truncation=True, max_length=48, return_tensors="np") for text in texts)
    found = [session.run(None, {value.name: batch[value.name] for value in session.get_inputs()})[0] for batch in batches]
    return np.concatenate(found)


def test_the_files_answer_as_the_measured_network(demo_run: Path, exported: Exported) -> None:
    split = load_task("demo").split("validation")
    with Archive(demo_run / "archive.db", create=False) as archive:
        shipped = next(m for m in archive.measurements(kind="finished", split="validation") if m.architecture == exported.architecture)
        kept = archive.predictions(shipped.key)
    assert kept is not None
    np.testing.assert_allclose(logits_of(exported.folder / "model.onnx", list(split.text)), kept.logits, atol=1e-4)
    config = json.loads((exported.folder / "config.json").read_text())
    assert set(config["onnx"]) == {"model.onnx", "model.int8.onnx"} and not (exported.folder / "model.safetensors").exists()
    whole, small = config["onnx"]["model.onnx"], config["onnx"]["model.int8.onnx"]
    assert whole["difference"] < 1e-4 < small["difference"]
    assert small["bytes"] == (exported.folder / "model.int8.onnx").stat().st_size
    logits = logits_of(exported.folder / "model.int8.onnx", list(split.text))
    assert small["metrics"]["validation"]["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == split.labels))
    assert "model.int8.onnx" in exported.render() and "validation accuracy" in exported.render()


def test_the_usage_text_works(exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = (exported.folder / "USAGE.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None and "Classes, in this order: negative, positive." in text
    monkeypatch.chdir(exported.folder)
    exec(code.group(1), {})
    assert capsys.readouterr().out.count("[") == 4, "an array of two rows in a list"


def test_the_usage_text_of_two_texts_apart(tmp_path: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its feed holds each text in its place, all of one length; the graph itself is tested elsewhere."""
    from methods.network import Network
    from tests.conformance.cases import CASES
    from workbench.onnx_files import usage

    case = next(case for case in CASES if case.name == "adabert-pair")
    text = usage(Network(case.space().spec(case.space().smallest(), case.backbone, case.head)), 32, ("no", "yes"))
    lines = text.partition("```python\n")[2].splitlines()
    code = [line for line in lines[: lines.index("print(session.run(None, feed))")] if "session" not in line and "onnxruntime" not in line]
    monkeypatch.chdir(exported.folder)
    space: dict[str, object] = {"inputs": ["input_ids", "attention_mask", "input_ids_b", "attention_mask_b"]}
    exec("\n".join(code), space)
    feed = space["feed"]
    assert isinstance(feed, dict) and {array.shape for array in feed.values()} == {feed["input_ids"].shape} and len(feed["input_ids"]) == 2
    assert not np.array_equal(feed["input_ids"], feed["input_ids_b"])


def test_winners_of_eight_bit_are_measured_beside_the_float_ones(demo_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo_run, tmp_path / "run"))
    file = demo_run.parent / "demo.yaml"
    answers = [workbench.query(copy, max_flops=limit) for limit in ("250K", "1G")]
    winners = [answer.architecture for answer in answers if isinstance(answer, Answer)]
    workbench.run(file, output=copy, set=["controls.int8=true"])
    with Archive(copy / "archive.db", create=False) as archive:
        measured = [m for m in archive.measurements(kind="control") if m.control == "int8"]
        assert {(m.architecture, m.split) for m in measured} == {(w, split) for w in winners for split in ("search", "validation")}
        found = {m.split: m for m in measured if m.architecture == winners[0]}
        of_float = next(
            m for m in archive.measurements(kind="finished", split="validation") if m.architecture == found["search"].architecture
        )
        small, whole = (archive.predictions(m.key) for m in (found["validation"], of_float))
    assert small is not None and whole is not None
    apart = np.abs(small.logits - whole.logits).max() / np.abs(whole.logits).max()
    assert 1e-4 < apart < 0.2
    metrics = found["validation"].metrics
    assert metrics["accuracy"] == pytest.approx(np.mean(small.logits.argmax(1) == small.labels))
    assert 0 < metrics["file_bytes"] < metrics["float32_file_bytes"]
    assert found["validation"].costs.flops == of_float.costs.flops
    table = head_to_head(copy)
    row = next(row for row in table.rows if row.row == "int8 (dynabert)" and row.budget == "small")
    assert row.quality == pytest.approx(metrics["accuracy"]) and row.training_flops is None
    assert row.architecture is not None and "MB instead of" in row.architecture
    workbench.run(file, output=copy, set=["controls.int8=true"])
    with Archive(copy / "archive.db", create=False) as archive:
        assert len([m for m in archive.measurements(kind="control") if m.control == "int8"]) == len(measured)


def test_mistakes_are_named(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--format tflite: there is no such format; there are torch, onnx"):
        workbench.export(demo_run, "0", tmp_path / "out", form="tflite")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--int8: goes with --format onnx"):
        workbench.export(demo_run, "0", tmp_path / "out", int8=True)
    monkeypatch.setattr(graph, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match=r"--format onnx: needs onnxruntime: pip install 'elastibench\[onnx\]'"):
        workbench.export(demo_run, "0", tmp_path / "out", form="onnx")
    with pytest.raises(UserError, match=r"controls.int8: needs onnxruntime: pip install"):
        workbench.run(demo_run.parent / "demo.yaml", output=tmp_path / "run", set=["controls.int8=true"])
