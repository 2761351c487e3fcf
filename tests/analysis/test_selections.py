"""Methods with a rule of their own: the three-way rows, floors, whether searching helped, and what diagnostics warn of."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import stdev
from xml.etree import ElementTree

import pytest

from analysis import alpha
from analysis.description import describe
from analysis.head_to_head import HeadToHead, head_to_head
from analysis.rows import Row
from methods import UserError
from search.archive import Archive
from search.selections import Selection, facts, keep_selection, selections
from tests.analysis.adabert_runs import ALPHA, CNN, LIMITS, RANDOM, STRATEGY, cell, own_rule_run, search_log
from tests.analysis.runs import Folder, costs, small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "own"
    own_rule_run(path).archive.close()
    return path


@pytest.fixture(scope="module")
def table(folder: Path) -> HeadToHead:
    return head_to_head(folder)


def row(table: HeadToHead, name: str) -> Row:
    return next(row for row in table.rows if row.row == name)


def test_selections_survive_and_the_later_one_holds(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.db") as archive:
        for found in (ALPHA, STRATEGY):
            keep_selection(archive, Selection("sst2", "adabert", 0, "alpha", LIMITS, found))
        keep_selection(archive, Selection("sst2", "adabert", 1, "alpha", LIMITS, ALPHA))
        keep_selection(archive, Selection("sst2", "adabert", 1, "alpha", LIMITS, None))
        archive.note("teacher", "frozen")
    with Archive(tmp_path / "a.db", create=False) as archive:
        assert selections(archive) == [Selection("sst2", "adabert", 0, "alpha", LIMITS, STRATEGY)]
        assert facts(archive) == {"teacher": "frozen"}
        archive.note('selection {"task": "sst2"}', "nonsense")
        with pytest.raises(UserError, match="a selection in it is damaged"):
            selections(archive)


def test_three_ways_side_by_side(table: HeadToHead) -> None:
    rows = [row.row for row in table.rows if row.method]
    ways = ["adabert", "adabert (alpha)", "adabert (tpe search)", "random (adabert)"]
    assert rows == [*ways, "bag-of-embeddings", "fixed-cnn", "untrained (adabert)"]
    own, strategy = row(table, "adabert (alpha)"), row(table, "adabert (tpe search)")
    assert (own.kind, own.quality, own.networks, own.architecture_id) == ("selection", pytest.approx(0.91), 3, ALPHA.id)
    assert (strategy.quality, strategy.networks, strategy.seeds) == (pytest.approx(0.80), 2, 2)
    assert (own.search_evaluations, strategy.search_evaluations, row(table, "adabert").search_evaluations) == (1, 40, 41)
    assert (own.search_quality, own.chosen_by) == (pytest.approx(0.86), "finished")
    assert (own.training_flops, strategy.training_flops) == (3e12, 4e12)
    assert row(table, "random (adabert)").quality == pytest.approx(0.84)


def test_floors_pay_for_themselves(table: HeadToHead) -> None:
    bag, cnn = row(table, "bag-of-embeddings"), row(table, "fixed-cnn")
    assert (bag.quality, bag.training_flops) == (0.70, 7e11)
    assert (cnn.quality, cnn.training_flops, cnn.architecture_id) == (0.95, 9e11, CNN.id)


def test_did_each_way_help(table: HeadToHead) -> None:
    """z: the mean of 0.90, 0.91 and 0.92 less that of the random networks, in their standard deviations."""
    d11 = {d.row: d for d in table.diagnoses if d.name == "D11"}
    z = (0.91 - 0.84) / stdev(RANDOM)
    assert d11["adabert (alpha)"].value["z"] == pytest.approx(z) and not d11["adabert (alpha)"].alarm
    assert d11["adabert (tpe search)"].value["z"] == pytest.approx(-0.04 / stdev(RANDOM)) and d11["adabert (tpe search)"].alarm
    said = [sentence for sentence in table.blocks[0].sentences if "z = " in sentence]
    assert [s.split(":")[0] for s in said] == ["sst2, small, adabert (alpha)", "sst2, small, adabert (tpe search)"]
    assert f"z = {z:.2f} (95% interval" in said[0] and "search helped" in said[0] and "no difference from random choice" in said[1]


def test_diagnostics_from_folder_and_archive(table: HeadToHead) -> None:
    found = {(d.name, d.seed, d.row): d for d in table.diagnoses}
    assert found["D1", 2, ""].why == "operations undecided"
    d3 = found["D3", 1, ""].value
    assert d3["finished"] == pytest.approx(0.86) and d3["gap_finished"] == pytest.approx(-0.06)
    assert found["D4", 0, ""].value == pytest.approx(-1) and found["D4", 0, ""].alarm
    assert found["D4", 1, ""].value is None and not found["D4", 1, ""].alarm
    d7 = found["D7", None, ""]
    assert d7.value["edges"] == d7.value["cells"] == 1 and not d7.alarm
    assert found["D13", None, ""].value == {"bag-of-embeddings": pytest.approx(0.21), "fixed-cnn": pytest.approx(-0.04)}
    assert found["D13", None, ""].alarm


def test_alarms_in_words_values_in_json(table: HeadToHead) -> None:
    text = " ".join(table.render().split())
    assert "Alarms of sst2, adabert, seed 0: D1, operations undecided; D4, Kendall's tau -1.00" in text
    assert "Alarms of sst2, adabert, seed 1: D1, operations undecided." in text
    assert "Alarms of sst2, small, adabert: D13, the method's 0.9100 is not above fixed-cnn" in text
    assert "sst2, adabert, probes: on the first token." in text and "selection {" not in text
    markdown = table.render("md")
    assert "### Alarms of searches" in markdown and "- sst2, adabert, probes: on the first token." in markdown
    data = json.loads(table.render("json"))
    d3 = next(d for d in data["diagnostics"] if (d["name"], d["seed"]) == ("D3", 0))
    assert d3["value"]["sampled"] == 0.80 and not d3["alarm"] and data["facts"] == ["sst2, adabert, probes: on the first token."]
    assert "Alarms of sst2" in table.render("tex")


def test_two_runs_are_told_apart(folder: Path, tmp_path: Path) -> None:
    text = " ".join(head_to_head([folder, small_run(tmp_path / "other")]).render().split())
    assert "Alarms of own, sst2, adabert, seed 0" in text and "own, sst2, adabert, probes: on the first token." in text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    own_rule_run(tmp_path)
    path = tmp_path / "sst2" / "adabert" / "seed-1" / "search" / "diagnostics.json"
    for damage in ("{", '{"D1": {"value": 1}}', '{"E1": {"value": 1, "alarm": false, "why": ""}}', "[]"):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"seed-1/search/diagnostics.json: damaged"):
            head_to_head(tmp_path)


def test_cells_in_words() -> None:
    assert describe(cell(2, "conv_3", "identity", "conv_3", "identity")) == "K 2, nodes (0:conv_3 1:identity) (0:conv_3 1:identity)"


def test_the_picture_of_a_search(tmp_path: Path) -> None:
    """Without a derived architecture in the archive every edge is drawn, with what is most probable in the end."""
    Folder(tmp_path / "run", [{"max_flops": 1e9}], tasks=[{"name": "sst2"}])
    for seed in (0, 1):
        search_log(tmp_path / "run", seed)
    svg = alpha(tmp_path / "run", tmp_path / "report" / "alpha").with_suffix(".svg").read_text()
    ElementTree.fromstring(svg)
    for words in ("sst2, adabert, seed 0", "sst2, adabert, seed 1", "derived: K = 2 (p = 0.73)", "conv_3", "depth K", "distillation"):
        assert f"<!-- {words}" in svg
    assert "<!-- penalties" not in svg, "a term that is always 0 is left out"
    one = alpha(tmp_path / "run", tmp_path / "one", seed=1).with_suffix(".svg").read_text()
    assert "seed 1" in one and "seed 0" not in one


def test_mistakes_in_the_picture_of_a_search(tmp_path: Path) -> None:
    Folder(tmp_path / "run", [{"max_flops": 1e9}], tasks=[{"name": "sst2"}])
    with pytest.raises(UserError, match="no search of seed 3 has left a log"):
        alpha(tmp_path / "run", tmp_path / "a", seed=3)
    log = search_log(tmp_path / "run")
    for damage, said in (("step,tau\n1,x\n", "damaged"), ("step\n1\n", "has no column tau"), ("", "damaged")):
        log.write_text(damage)
        with pytest.raises(UserError, match=f"alpha.csv: {said}"):
            alpha(tmp_path / "run", tmp_path / "a")


def test_random_networks_are_those_at_the_cost_of_what_the_own_rule_found(tmp_path: Path) -> None:
    """Drawn at 90 to 100 % of 0.6 of the limit; a way whose network costs something else is not set against them."""
    run = own_rule_run(tmp_path)
    dear = cell(3, *["conv_3"] * 4)
    run.control("random", cell(1, "conv_3", "identity", "identity", "identity"), 0.1, costs(0.95))
    for kind, split in (("shared", "search"), ("finished", "validation")):
        run.measure(dear, 0.8, split, kind, costs(1.0), seed=0)
    keep_selection(run.archive, Selection("sst2", "adabert", 0, "tpe", LIMITS, dear))
    found = head_to_head(tmp_path)
    assert row(found, "random (adabert)").quality == pytest.approx(0.84), "the one that costs 95 % of the limit is not among them"
    d11 = {d.row: d for d in found.diagnoses if d.name == "D11"}
    assert d11["adabert (alpha)"].value["n"] == len(RANDOM)
    assert d11["adabert (tpe search)"].value is None, "of seed 2 alone there is no random network"
    assert "with 90 % to 100 % of its cost" in " ".join(found.render().split())
