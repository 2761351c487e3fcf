"""The Pareto picture: what it shows, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis import pareto
from methods import UserError
from tests.analysis.runs import Folder, architecture, costs, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "one")


def test_png_and_svg_are_written(run: Path, tmp_path: Path) -> None:
    png = pareto([run], tmp_path / "report" / "pareto")
    assert png == tmp_path / "report" / "pareto.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    svg = png.with_suffix(".svg").read_text()
    ElementTree.fromstring(svg)
    for words in ("dynabert", "teacher", "truncated-kd", "random", "rewired-cut", "winner of a budget", "limit of a budget"):
        assert f"<!-- {words}" in svg
    assert "GFLOPs (2 per multiply" in svg and "length 64, batch 1" in svg
    assert "split search" in svg and "split validation" in svg


@pytest.mark.parametrize("cost", ["parameters", "other_parameters"])
def test_other_costs(run: Path, tmp_path: Path, cost: str) -> None:
    svg = pareto(run, tmp_path / "p.svg", cost=cost).with_suffix(".svg").read_text()
    assert "parameters" in svg and "GFLOPs" not in svg


def test_the_same_run_gives_the_same_picture_and_no_open_figure(run: Path, tmp_path: Path) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    first, second = (pareto(run, tmp_path / name).with_suffix(".svg").read_text() for name in ("a", "b"))
    assert first == second
    assert plt.get_fignums() == [] and dict(mpl.rcParams) == before


def test_a_run_with_nothing_finished_has_a_picture(tmp_path: Path) -> None:
    bare = Folder(tmp_path / "bare", [{"max_flops": 1e9}])
    bare.measure(architecture(1), 0.5, "search", cost=costs(0.2))
    assert pareto(tmp_path / "bare", tmp_path / "p.png").exists()


def test_mistakes_are_one_message(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'latency' is unknown; there are flops, parameters, other_parameters"):
        pareto(run, tmp_path / "p", cost="latency")
    Folder(tmp_path / "empty", [{"max_flops": 1e9}])
    with pytest.raises(UserError, match="nothing was measured yet"):
        pareto(tmp_path / "empty", tmp_path / "p")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        pareto(run, tmp_path / "file" / "p")
