"""What the commands show on the terminal, and the course of a launch."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape

from pcm_ros.asked_to_end import AskedToEnd
from pcm_ros.bringup import System, environment

INTERRUPTED = 130


def state_line(state: Any) -> str:
    """A ConsensusState as one line of rich markup."""
    if state.phase != state.PLANNING:
        return f"[bold cyan]{state.phase:9}[/] {escape(state.message)}"
    pick, place = state.best.pick_position, state.best.place_position
    energies = "  ".join(f"{escape(name)} {energy:.2f}" for name, energy in sorted(zip(state.scorers, state.energies, strict=True)))
    line = (
        f"[bold]iteration {state.iteration}[/]  energy {state.energy:.2f}  agreement {state.agreement:.2f}  {state.seconds:.2f} s\n"
        f"          best: pick ({pick.x:.3f}, {pick.y:.3f}, {pick.z:.3f}) place ({place.x:.3f}, {place.y:.3f}, {place.z:.3f}) m"
        f" turn {math.degrees(state.best.place_yaw - state.best.pick_yaw):+.0f} deg\n          [dim]{energies}[/]"
    )
    for name, reason in zip(state.dropped, state.dropped_reasons, strict=True):
        line += f"\n          [yellow]left out: {escape(name)}: {escape(reason)}[/]"
    return line


def result_line(success: bool, code: str, message: str) -> str:
    """How a manipulation ended, as rich markup."""
    return "[bold green]success[/]: the scorers see that the goal holds" if success else f"[bold red]{code}[/]: {escape(message)}"


_interrupted = AskedToEnd()


def remember_interrupts() -> None:
    """SIGINT raises KeyboardInterrupt as usual, and is remembered: one that is raised in a callback of an import, or in an extension's
    start, is lost otherwise."""

    def handle(number: int, frame: FrameType | None) -> None:
        _interrupted.set()
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started this process wants something else
        signal.signal(signal.SIGINT, handle)


def was_interrupted() -> bool:
    """Whether SIGINT came since `remember_interrupts`."""
    return _interrupted.is_set()


@contextmanager
def stop_on_signals() -> Iterator[AskedToEnd]:
    """A flag that SIGINT and SIGTERM set, in place of their usual effect; set at once if SIGINT came before and was lost."""
    asked = AskedToEnd()
    if was_interrupted():
        asked.set()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(system: System, verbose: bool, console: Console) -> int:
    """Start a system, send its instruction if it has one, show what happens, end everything.

    Returns:
        0: the goal was reached (without instruction: ended by Ctrl-C). 1: it was not, or a node failed. 130: interrupted. 2: no start.
    """
    logs = Path("runs") / "log" / time.strftime("%Y%m%d-%H%M%S")

    def show(name: str, line: str) -> None:
        if verbose or any(mark in line for mark in ("[WARN]", "[ERROR]", "[FATAL]", "cannot start")):
            console.print(f"[dim]\\[{name}] {escape(line)}[/]", highlight=False, soft_wrap=True)

    os.environ.update(environment())  # before the client is made
    from pcm_ros.client import ManipulationClient, NotAvailable
    from pcm_ros.processes import BringupError, RunningSystem

    with stop_on_signals() as asked:
        running = RunningSystem(system, logs, show)
        try:
            with ManipulationClient(namespace=system.namespace) as client:
                running.refuse_namesakes(client)
                with running:
                    console.print(f"{len(running.nodes)} processes: {', '.join(running.nodes)}; logs in {logs}", highlight=False)
                    start = time.monotonic()
                    running.activate(client, should_stop=asked.is_set)
                    console.print(f"all active after {time.monotonic() - start:.1f} s")
                    code = _carry_out(system, running, client, asked, console)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except (BringupError, NotAvailable) as error:
            console.print(f"[bold red]failed[/]: {escape(str(error))}")
            code = 1
        loading = () if running.active else (-signal.SIGINT, -signal.SIGTERM)
        for name, exit_code in running.ended().items():
            if exit_code not in (0, *loading):
                console.print(f"[yellow]node '{name}' ended with exit code {exit_code}; its log is {running.nodes[name].log}[/]")
        if asked.is_set():
            console.print("interrupted: all processes ended")
    return code


def ended_goal(goal: Any, asked: AskedToEnd, console: Console, check: Callable[[], None] = lambda: None) -> Any:
    """The outcome of a running goal; once asked to end, it is cancelled, and its safe end waited for.

    Args:
        goal: a RunningGoal. check: called now and then until then; what it raises ends the wait.

    Raises:
        TimeoutError: cancelled, and no end came, or asked again; the arm may move. NotAvailable: the consensus node is gone.
    """
    from pcm_ros.client import GOAL_END
    from pcm_ros.nodes.ros_workcell import MAY_MOVE

    def stopped() -> bool:
        check()
        return asked.is_set()

    with contextlib.suppress(KeyboardInterrupt):
        return goal.result(should_stop=stopped)
    console.print("cancelled: waiting for a safe end (Ctrl-C again: not even for that)", highlight=False)
    goal.cancel()
    try:
        return goal.result(GOAL_END, asked.insists)
    except TimeoutError as error:
        raise TimeoutError(f"the goal was cancelled, but did not end within {GOAL_END:g} s; {MAY_MOVE}") from error
    except KeyboardInterrupt as error:
        raise TimeoutError(f"the goal was cancelled, and its end not waited for; {MAY_MOVE}") from error


def _carry_out(system: System, running: Any, client: Any, asked: AskedToEnd, console: Console) -> int:
    from pcm_ros.client import NotAvailable

    if not system.instruction:
        console.print(f"{system.hint}; Ctrl-C ends", highlight=False, soft_wrap=True)
        while not asked.wait(0.2):
            running.check()
        return 0
    console.print(f'goal: "{escape(system.instruction)}"', highlight=False)

    def show(state: Any) -> None:
        console.print(state_line(state), highlight=False, soft_wrap=True)

    goal = client.start(system.instruction, system.seed, show, should_stop=asked.is_set)
    try:
        outcome = ended_goal(goal, asked, console, running.check)
    except (TimeoutError, NotAvailable) as error:
        if not asked.is_set():
            raise
        console.print(f"[bold red]{escape(str(error))}[/]", highlight=False)
        return INTERRUPTED
    console.print(result_line(outcome.success, outcome.error, outcome.message), highlight=False)
    console.print(f"{len(outcome.actions)} action(s) carried out; video: {outcome.video or 'none'}", highlight=False, soft_wrap=True)
    return 0 if outcome.success else INTERRUPTED if asked.is_set() else 1


def printable(text: str) -> str:
    """Text that does nothing to a terminal: control characters become U+FFFD."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def json_values(value: Any) -> Any:
    """What json can write, of nested mappings and sequences: paths become text, what is no finite number null."""
    if isinstance(value, Mapping):
        return {str(key): json_values(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
