"""Run a bench: every item once, whatever happens in between, and one JSON at the end."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pcm_ros.evidence.document import Document, Record, installed_versions, plain, this_machine, typed_command
from pcm_ros.evidence.intervals import Estimate, rate
from pcm_ros.evidence.journal import Entry, Journal
from pcm_ros.evidence.workers import BenchError, Outcome, Work, run_here, run_in_pool, run_on_ray


def run_bench(
    name: str,
    config: Mapping[str, Any],
    items: Mapping[str, Any],
    run_one: Callable[[Any, Any], Mapping[str, Any]],
    summarise: Callable[[Sequence[Record]], Mapping[str, Estimate]],
    json_path: Path,
    *,
    prepare: Callable[[Mapping[str, Any]], Any] | None = None,
    jobs: int = 1,
    ray_address: str | None = None,
    command: str | None = None,
    headline: Callable[[Sequence[Record]], str] | None = None,
    progress: bool = True,
    fresh: bool = False,
) -> Document:
    """Run each item, keep each record at once, summarise, write the JSON.

    While it runs, records are in a journal beside the JSON (`result.json.journal`). A run that was killed goes on from there when it is
    started again with the same name and configuration: nothing is lost, nothing is run twice. When all is done the JSON is written
    and the journal deleted, so that the next run is a real one.

    Args:
        name: of the bench.
        config: all that determines the records (seed, suite, scorers, ...), of JSON-like values. Not what only changes the speed (jobs).
        items: id -> what run_one gets. Ids are unique and mean the same in each run of the same config. Picklable if jobs > 1.
        run_one: (item, prepared) -> record. Module-level if jobs > 1. What it raises becomes a record with "error".
        summarise: records -> results. It gets all records in the order of the items, those with "error" too: it has to count them.
        json_path: where the JSON goes.
        prepare: config -> `prepared`, once in each worker.
        jobs: >= 1. 1 runs in this process; more use that many processes.
        ray_address: run on this Ray cluster with `jobs` workers.
        command: what to type to get this; the command line of this process by default.
        headline: records so far -> a few words for the progress bar.
        progress: show a bar on stderr.
        fresh: forget a journal that is there.

    Returns:
        What was written. Its results hold "errors", the share of items that raised, besides those of `summarise`.

    Raises:
        BenchError: prepare failed, or Ray is missing. JournalError: see `Journal`. ValueError: no items, or jobs < 1.
    """
    if not items or jobs < 1:
        raise ValueError(f"a bench needs at least one item and jobs >= 1, got {len(items)} items and jobs = {jobs}")
    json_path = Path(json_path)
    journal_path = json_path.with_name(json_path.name + ".journal")
    console = Console(stderr=True, quiet=not progress)
    versions = installed_versions()
    with Journal(journal_path, name, config, fresh) as journal:
        done = {identity: entry for identity, entry in journal.entries.items() if identity in items}
        if done or journal.torn:
            torn = ", a torn line was cut off" if journal.torn else ""
            console.print(f"{journal_path}: going on after {len(done)} of {len(items)} records{torn}")
        if earlier := {entry.commit for entry in done.values()} - {versions["commit"]}:
            console.print(
                f"[yellow]these records were made by other code[/yellow] ({', '.join(sorted(earlier))}; this is {versions['commit']}): the "
                "result will name all of it; to measure one version, begin anew (fresh)"
            )
        left = {identity: item for identity, item in items.items() if identity not in done}
        work = Work(run_one, prepare, plain(config))
        session, start = uuid.uuid4().hex[:12], time.perf_counter()
        with _bar(console, name, len(items), len(done)) as advance, closing(_outcomes(work, left, jobs, ray_address)) as outcomes:
            for outcome in outcomes:
                if outcome.fatal:
                    raise BenchError(f"bench '{name}' could not be prepared:\n{outcome.fatal}")
                if outcome.error:
                    console.print(f"[red]{outcome.identity} failed[/red]: {outcome.error.strip().splitlines()[-1]}")
                entry = Entry(_record(outcome), session, time.perf_counter() - start, versions["commit"])
                done[outcome.identity] = journal.append(entry)
                advance(headline([e.record for e in done.values()]) if headline else "")
        entries = [done[identity] for identity in items]
        records = [entry.record for entry in entries]
        commits = list(dict.fromkeys(entry.commit for entry in entries))
        sessions = {entry.session: 0.0 for entry in entries}
        for entry in entries:
            sessions[entry.session] = max(sessions[entry.session], entry.elapsed)
        results = {**summarise(records), "errors": rate(["error" in record for record in records])}
        document = Document(
            name=name,
            command=command or typed_command(),
            config=plain(config),
            versions={**versions, "commit": ", ".join(commits)},
            machine={**this_machine(), "jobs": jobs, "ray": ray_address or "", "sessions": len(sessions)},
            seconds=sum(sessions.values()),
            results=results,
            records=records,
        )
        document.save(json_path)
        journal.remove(items.keys())
    return document


def _record(outcome: Outcome) -> Record:
    record: Record = {"id": outcome.identity, "seconds": outcome.seconds, **outcome.record}
    if record["id"] != outcome.identity:
        raise ValueError(f"run_one returned the id '{record['id']}' for '{outcome.identity}'; leave 'id' out")
    if outcome.error:
        record["error"] = outcome.error
    return record


def _outcomes(work: Work, items: Mapping[str, Any], jobs: int, ray_address: str | None) -> Generator[Outcome, None, None]:
    if ray_address is not None:
        return run_on_ray(work, items, ray_address, jobs)
    return run_in_pool(work, items, jobs) if jobs > 1 else run_here(work, items)


@contextmanager
def _bar(console: Console, name: str, total: int, done: int) -> Iterator[Callable[[str], None]]:
    """A progress bar with a function that moves it by one and shows a few words."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    hidden = console.quiet or not sys.stderr.isatty()
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[headline]}"), console=console, disable=hidden) as bar:
        task = bar.add_task(name, total=total, completed=done, headline="")
        yield lambda headline: bar.update(task, advance=1, headline=headline)
