"""A run on Ray: what is trained and measured is computed by tasks and actors; the driver reads it back and alone writes the archive.

The parts of the run wait for each other in threads of the driver, of which one works at a time: the others wait for Ray. So everything
that the driver does itself it does as without Ray, and reads what it would have computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import ray
import torch
import yaml

from methods.errors import UserError
from methods.recipe import StageRecord
from methods.space import Architecture
from search.archive import Archive
from search.loop import Evaluate, Evaluated
from search.measurement import Measurement
from search.ray_.pool import Pool
from search.ray_.tasks import completed
from search.stopping import Race, Stopped
from workbench import jobs
from workbench.experiment import Experiment, Resources
from workbench.folder import RunFolder
from workbench.progress import Reporter
from workbench.running import MethodRun
from workbench.session import Session
from workbench.workers import Job, Result, Workers

STATUS_SECONDS = 60.0


@dataclass(frozen=True)
class Home:
    """What a worker needs to know of a run: the resolved experiment (YAML), the folder and what messages call it."""

    experiment: str
    folder: str
    name: str

    @classmethod
    def of(cls, session: Session) -> Home:
        return cls(yaml.safe_dump(session.experiment.resolved(), sort_keys=False), str(session.folder.path.resolve()), session.name)


@lru_cache(maxsize=1)
def session_of(home: Home) -> Session:
    """The worker's; one per process, so that data is read once."""
    experiment = Experiment.model_validate(yaml.safe_load(home.experiment))
    session = Session(experiment, RunFolder(Path(home.folder)), home.name)
    session.hardware  # noqa: B018 (settled by the driver)
    return session


@dataclass(frozen=True)
class Outcome:
    """What the driver has to keep of a job."""

    measured: list[Evaluated]
    stages: list[tuple[str, str, int, StageRecord]]


def perform(home: Home, job: Job, known: tuple[Measurement, ...]) -> Outcome:
    """Computes a job in a worker."""
    session, collected = session_of(home), jobs.Collected(known)
    session.archive = cast(Archive, collected)
    torch.set_num_threads(session.hardware.threads)
    getattr(jobs, job.call)(session, *job.arguments)
    return Outcome(collected.added, collected.stages)


def evaluator(home: Home, where: tuple[str, str, int], supernet: Any) -> Callable[[Architecture | Race], Evaluated | Stopped]:
    """Makes, in an actor, what measures architectures on `search`; `supernet`: a reference. The copy is the actor's own: with weights in
    the store's memory, which is aligned otherwise, the last bits of the logits differ."""
    session = session_of(home)
    session.archive = cast(Archive, jobs.Collected(()))
    torch.set_num_threads(session.hardware.threads)
    run = jobs.run_of(session, *where)
    run.supernet = ray.get(supernet).to(session.hardware.device)
    return run.scores.on("search").answer


class RayWorkers(Workers):
    """The tasks and actors of the cluster that Ray is connected to."""

    def __init__(self, session: Session, reporter: Reporter) -> None:
        self._session, self._reporter, self._home = session, reporter, Home.of(session)
        reporter.side_by_side = True
        self._turn, self._parts = threading.Lock(), list[Future[Any]]()
        self._running: dict[str, float] = {}
        self._done = 0
        self._stopped = False
        _check_folder(self._home.folder)
        self._turn.acquire()  # this thread's, until it waits for the parts

    def start(self, part: Callable[[], Result]) -> Callable[[], Result]:
        future: Future[Result] = Future()

        def work() -> None:
            try:
                with self._turn:
                    self._go_on()
                    torch.set_num_threads(self._session.hardware.threads)
                    value = part()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        self._parts.append(cast(Future[Any], future))
        threading.Thread(target=work, daemon=True).start()

        def result() -> Result:
            with self._waiting():
                return future.result()

        return result

    def ahead(self, jobs: Sequence[Job]) -> None:
        archive = self._session.archive
        known = {about: tuple(archive.measurements(about)) for about in {job.about for job in jobs}}
        calls = {job.name: partial(self._submit, job, known[job.about]) for job in jobs}
        self._running |= dict.fromkeys(calls, time.monotonic())
        controls: dict[str, list[Evaluated]] = {}
        try:
            for name, outcome in completed(calls, waiting=self._waiting, again=self._again):
                for stage in outcome.stages:
                    archive.record_stage(*stage)
                self._keep([one for one in outcome.measured if one[0].kind != "control"])
                controls[name] = [one for one in outcome.measured if one[0].kind == "control"]
                seconds = time.monotonic() - self._running.pop(name)
                self._done += 1
                self._reporter.say(name, f"done after {seconds:.0f} s on a worker ({self._done} so far, {len(self._running)} under way)")
        finally:
            for name in calls:  # equal networks may be controls of two names: the first job's name is kept
                self._keep(controls.get(name, ()))
                self._running.pop(name, None)

    def _keep(self, measured: Iterable[Evaluated]) -> None:
        for measurement, predictions in measured:
            self._session.archive.add(measurement, predictions)

    @contextmanager
    def evaluator(self, run: MethodRun) -> Iterator[Evaluate | None]:
        where = (run.options.name, run.member.name, run.seed)
        resources, generation = self._session.resources_of(run.member), self._session.experiment.search.generation

        def make() -> Callable[[], Any]:
            stored = ray.put(run.supernet.cpu())
            run.supernet.to(run.session.hardware.device)
            return partial(evaluator, self._home, where, stored)

        with Pool(
            make,
            min(resources.workers or generation, generation),
            "{} {} seed {} search".format(*where),
            ray_options(resources, run.session),
            waiting=self._waiting,
            again=self._again,
        ) as pool:
            yield pool

    def join(self) -> None:
        pending, failed = set(self._parts), set[Future[Any]]()
        self._turn.release()
        try:
            while pending and not failed:
                done, pending = wait(pending, timeout=STATUS_SECONDS, return_when=FIRST_EXCEPTION)
                failed = {future for future in done if future.exception() is not None}
                if pending and not done:
                    self._status()
        finally:
            self._stopped = True
            self._turn.acquire()  # so that no part is in the middle of something
        for future in failed:
            future.result()

    def _submit(self, job: Job, known: tuple[Measurement, ...]) -> Any:
        options = ray_options(job.resources, self._session)
        return ray.remote(perform).options(name=job.name, max_retries=0, **options).remote(self._home, job, known)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Another part may work meanwhile."""
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()
            self._go_on()

    def _go_on(self) -> None:
        if self._stopped:
            raise RuntimeError("the run has ended")

    def _again(self, name: str) -> None:
        self._reporter.say(name, "its worker or node died; done again on another one")

    def _status(self) -> None:
        """What is under way, while nothing else is said."""
        free, all_of = ray.available_resources(), ray.cluster_resources()
        used = ", ".join(f"{all_of[key] - free.get(key, 0):g} of {all_of[key]:g} {key}s" for key in ("CPU", "GPU") if all_of.get(key))
        names = sorted(self._running, key=lambda name: self._running[name])
        shown = "; ".join(names[:5]) + (f"; and {len(names) - 5} more" if len(names) > 5 else "")
        self._reporter.say("ray", f"{used} in use", f"{len(names)} jobs begun or waiting: {shown}" if names else "searching")


def ray_options(resources: Resources, session: Session) -> dict[str, Any]:
    """As Ray's tasks and actors are told."""
    hardware = session.hardware
    gpus = resources.gpus if resources.gpus is not None else float(hardware.device == "cuda")
    found: dict[str, Any] = {"num_cpus": float(hardware.threads) if resources.cpus is None else resources.cpus, "num_gpus": gpus}
    return found | ({"memory": int(resources.memory)} if resources.memory else {})


def check_resources(session: Session, address: str) -> None:
    """Raises UserError where this machine alone can never have what a stage takes; elsewhere nodes may still come."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted: list[tuple[str, Resources]] = [("resources", session.experiment.resources)]
    wanted += [(f"{m.place}.resources", m.entry.resources) for m in session.members if m.entry.resources]
    for place, resources in wanted:
        options = ray_options(resources, session)
        need = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options.get("memory", 0)}
        if not any(all(amount <= node.get(key, 0) for key, amount in need.items()) for node in nodes):
            told = ", ".join(f"{amount:g} {key}" for key, amount in need.items() if amount)
            message = f"{session.name}: {place}: {told} are asked for, and no node has them"
            if address == "local":
                raise UserError(f"{message} (this machine: {nodes[0].get('CPU', 0):g} CPU, {nodes[0].get('GPU', 0):g} GPU)")
            print(f"{message} yet; what asks for them waits", flush=True)


def _check_folder(folder: str) -> None:
    """Raises UserError where a node does not see the run folder."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    seen: dict[str, Any] = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            seen[node["NodeManagerAddress"]] = ray.remote(sees).options(num_cpus=0, scheduling_strategy=there).remote(folder)
    blind = [at for at, found in seen.items() if not ray.get(found)]
    if blind:
        raise UserError(
            f"{folder}: node {blind[0]} does not see this run folder; choose one on a file system that all nodes share with --output"
        )


def sees(folder: str) -> bool:
    """Whether this node can read a run folder."""
    return RunFolder(folder).experiment_file.is_file()
