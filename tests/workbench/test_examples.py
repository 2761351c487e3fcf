"""Every experiment file that is shipped can be read, and its labels and budgets hold together; data and backbones need not be there."""

from pathlib import Path

import pytest

from workbench.loading import check, read_yaml

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_read_and_read_back_as_resolved(path: Path) -> None:
    experiment = check(read_yaml(path), str(path), path.parent)
    assert experiment.methods and experiment.budgets
    assert check(experiment.resolved(), "resolved").resolved() == experiment.resolved()


def test_there_are_examples() -> None:
    assert {"demo", "sst2-minilm", "adabert-minilm", "dynabert-ablation"} <= {path.stem for path in EXAMPLES}
