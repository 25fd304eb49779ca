"""Where items are run: in this process, in a pool of processes, or on a Ray cluster. Outcomes come as they finish."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class BenchError(RuntimeError):
    """A bench that cannot go on: its workers could not be prepared, or a backend is missing."""


@dataclass(frozen=True)
class Work:
    """What to do with an item. Functions are module-level, so that other processes can import them.

    Attributes:
        run_one: (item, prepared) -> record, a mapping of JSON-like values.
        prepare: config -> what run_one needs and is dear to make (models); called once in each worker. None: `prepared` is None.
        config: of the bench.
    """

    run_one: Callable[[Any, Any], Mapping[str, Any]]
    prepare: Callable[[Mapping[str, Any]], Any] | None
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One item done. `error` is the traceback of what run_one raised, "" if nothing; `fatal` that of what prepare raised."""

    identity: str
    record: Mapping[str, Any]
    seconds: float
    error: str = ""
    fatal: str = ""


class Worker:
    """Prepares once, then runs items."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.prepared: Any = None
        self.ready = work.prepare is None

    def ping(self) -> bool:
        """True: this worker could be made where it is."""
        return True

    def run(self, identity: str, item: Any) -> Outcome:
        """Run one item; what it raises is in the outcome."""
        if not self.ready:
            try:
                assert self.work.prepare is not None
                self.prepared, self.ready = self.work.prepare(self.work.config), True
            except Exception:
                return Outcome(identity, {}, 0.0, fatal=traceback.format_exc())
        start = time.perf_counter()
        try:
            record: Mapping[str, Any] = self.work.run_one(item, self.prepared)
            return Outcome(identity, dict(record), time.perf_counter() - start)
        except Exception:
            return Outcome(identity, {}, time.perf_counter() - start, error=traceback.format_exc())


def run_here(work: Work, items: Mapping[str, Any]) -> Generator[Outcome, None, None]:
    """One after the other in this process."""
    worker = Worker(work)
    for identity, item in items.items():
        yield worker.run(identity, item)


_worker: Worker | None = None


def _start(work: Work) -> None:
    global _worker
    _worker = Worker(work)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # the bench was killed: nobody will read what this process makes

    threading.Thread(target=follow, daemon=True).start()


def _ping() -> bool:
    return _worker is not None


def _run(identity: str, item: Any) -> Outcome:
    assert _worker is not None
    return _worker.run(identity, item)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside use one OpenMP thread unless the user said otherwise: else each takes all cores."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def run_in_pool(work: Work, items: Mapping[str, Any], jobs: int) -> Generator[Outcome, None, None]:
    """In `jobs` fresh processes (spawned). Not more than `jobs` items are handed out at a time.

    If a process dies (out of memory, a crash in native code), the items that were in flight are run again one at a time, and the one that
    kills its process again gets an error; the others are not affected.

    Raises:
        BenchError: run_one or prepare cannot be sent to another process.
    """
    try:
        pickle.dumps(work)
    except Exception as error:
        raise BenchError(f"jobs > 1 needs module-level functions and picklable values: {error}") from error
    waiting = dict(items)
    suspects: dict[str, Any] = {}
    while waiting or suspects:
        alone = bool(suspects)
        source, width = (suspects, 1) if alone else (waiting, jobs)
        in_flight: dict[Future[Outcome], str] = {}
        with _pool(work, width) as pool:
            try:
                # all start before the first item: a pool that breaks while it starts another process waits for that one for ever
                for ping in [pool.submit(_ping) for _ in range(width)]:
                    ping.result()
            except BrokenProcessPool as error:
                raise BenchError(f"worker processes do not start; what they printed above says why ({error})") from error
            try:
                while source or in_flight:
                    while source and len(in_flight) < width:
                        identity = next(iter(source))
                        in_flight[pool.submit(_run, identity, source[identity])] = identity
                        del source[identity]
                    for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del in_flight[future]
                        yield outcome
            except BrokenProcessPool:
                for identity in in_flight.values():
                    if alone:
                        yield Outcome(identity, {}, 0.0, error=f"The process that ran '{identity}' died, twice.")
                    else:
                        suspects[identity] = items[identity]


@contextmanager
def _pool(work: Work, width: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that ends with the block: at once if the block is left by an exception, since nobody wants its results then."""
    with _one_thread_each():
        pool = ProcessPoolExecutor(width, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(work,))
        try:
            yield pool
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_on_ray(work: Work, items: Mapping[str, Any], address: str, jobs: int) -> Generator[Outcome, None, None]:
    """On a Ray cluster, in `jobs` actors of one core each, or as many as it has cores.

    Args:
        address: as for `ray.init`, for example "auto" or "ray://host:10001"; "local" starts a cluster on this machine.

    Raises:
        BenchError: Ray is not installed, or its workers do not start.
    """
    try:
        import ray
    except ImportError:
        remedy = "pip install ray (without --ray, --jobs uses processes of this machine)"
        raise BenchError(f"--ray needs the package 'ray': {remedy}") from None
    # on a cluster the hosts have their own installation; workers started here find what this process finds
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}} if address == "local" else {}
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, runtime_env=environment)
    try:
        actor = ray.remote(num_cpus=1)(Worker)
        cores = int(ray.cluster_resources().get("CPU", 1))
        idle = [actor.remote(work) for _ in range(min(jobs, max(cores, 1)))]  # more would wait for a core for ever
        try:
            ray.get([worker.ping.remote() for worker in idle])
        except ray.exceptions.RayError as error:
            raise BenchError(
                f"Ray workers do not start: is pcm_ros of this version installed on each host of '{address}'? {error}"
            ) from error
        busy: dict[Any, tuple[Any, str]] = {}
        waiting = list(items.items())[::-1]
        while waiting or busy:
            while waiting and idle:
                identity, item = waiting.pop()
                worker = idle.pop()
                busy[worker.run.remote(identity, item)] = (worker, identity)
            for reference in ray.wait(list(busy))[0]:
                worker, identity = busy.pop(reference)
                try:
                    outcome = ray.get(reference)
                    idle.append(worker)
                except ray.exceptions.RayActorError as error:
                    outcome = Outcome(identity, {}, 0.0, error=f"The worker that ran '{identity}' died: {error}")
                    idle.append(actor.remote(work))
                yield outcome
    finally:
        ray.shutdown()
