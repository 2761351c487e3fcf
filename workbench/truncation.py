"""The control that needs no search: the teacher cut evenly to fewer layers and distilled, `truncated-kd`."""

from __future__ import annotations

from functools import partial

from methods.baselines.truncated import NAME, TruncatedOptions, deepest_that_fits, train_truncated
from methods.network import Network
from methods.space import Architecture
from search.limits import known_to_fit
from workbench.experiment import TaskOptions
from workbench.measuring import Measurer
from workbench.progress import Reporter
from workbench.session import Session


def truncated(
    session: Session, options: TaskOptions, seed: int, teacher: Network, controls: TruncatedOptions, flops: float, reporter: Reporter
) -> None:
    """For each budget the deepest cut that meets it; where `equal_flops` is set, all of them together train for `flops`."""
    wanted = _wanted(session, options)
    if not wanted:
        return
    equal = session.experiment.controls.equal_flops and flops > 0
    share = flops / len(wanted) if equal else None
    folder = session.folder.method(options.name, NAME, seed) / (f"flops-{share:.6g}" if share else "epochs")
    seconds = list[float]()
    context = session.context(options, folder, seed, NAME, teacher, heard=lambda stage: seconds.append(stage.seconds))
    task, collate = session.task(options), session.collate(options)
    measurer = Measurer(session.archive, task, collate, seed, session.experiment.cost, session.hardware, session.devices)
    reporter.say(options.name, NAME, f"seed {seed}")
    for architecture in wanted:
        network = train_truncated(context, architecture, controls, share)
        measurer.network(network, architecture, "control", NAME)
    reporter.finished(options.name, NAME, "distil", sum(seconds))


def _wanted(session: Session, options: TaskOptions) -> list[Architecture]:
    """One architecture per budget, each once; none under a limit on the latency of a device whose table lacks its parts."""
    cost, shape, head = session.experiment.cost, session.shape, session.task(options).head
    budgets = session.experiment.all_budgets()
    found = [deepest_that_fits(shape, head, partial(known_to_fit, budget, session.devices, cost.length, cost.batch)) for budget in budgets]
    return list(dict.fromkeys(architecture for architecture in found if architecture is not None))
