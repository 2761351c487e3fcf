"""Objects show themselves in a notebook, and names with HTML in them are text."""

from __future__ import annotations

from dataclasses import replace

from methods import Architecture, Budget, Costs
from search.candidates import pareto_front
from search.measurement import Measurement

EVIL = "<img src=x onerror=alert(1)>"


def measured(method: str, quality: float, flops: int) -> Measurement:
    which = Architecture.of(method, {"heads": [1, 2], EVIL: EVIL})
    return Measurement(which, "sst2", "search", "d", "w", "shared", 0, "accuracy", {"accuracy": quality}, Costs(10, 20, flops))


def test_each_shows_what_it_is_and_escapes_it() -> None:
    one, two = measured(EVIL, 0.5, 1_000), measured("dynabert", 0.75, 2_000)
    front = pareto_front([one, two, measured("dear", 0.6, 3_000)])
    shown = {
        "architecture": one.architecture._repr_html_(),
        "measurement": replace(one, task=EVIL)._repr_html_(),
        "budget": Budget(max_flops=2e9, max_latency={EVIL: 0.5}, name=EVIL)._repr_html_(),
        "front": front._repr_html_(),
    }
    for html in shown.values():
        assert EVIL not in html and "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "[1, 2]" in shown["architecture"] and "accuracy 0.5000" in shown["measurement"] and "2,000,000,000" in shown["budget"]
    assert "front of 2" in shown["front"] and "0.7500" in shown["front"] and "dear" not in shown["front"]
