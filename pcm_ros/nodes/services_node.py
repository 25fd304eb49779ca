"""One node for the tasks that answer questions rather than move robots: each is a service, listed in `pcm_ros.nodes.services.TASKS`.

Each task has a thread and a bounded queue of its own, so that no callback ever waits. Services `/pcm/...` exist while the node is active;
service `~/cancel` in, topic `~/progress` out. Models are loaded by the first request that needs them, or at activation (`warm_up`).
"""

from __future__ import annotations

import contextlib
from typing import Any

from rclpy.timer import Timer

from pcm_ros import msg, srv
from pcm_ros.nodes import conversions
from pcm_ros.nodes.lifecycle import ConfigurationError, Node, Parameter, run
from pcm_ros.nodes.services import TASKS
from pcm_ros.nodes.services.worker import Report, Worker


class ServicesNode(Node):
    """Serves tasks, each with a queue of its own."""

    PARAMETERS = (
        Parameter("tasks", tuple(TASKS), f"tasks to serve: {', '.join(TASKS)}"),
        Parameter("waiting", 8, "requests of a task that may wait while another is worked on; one more is answered BUSY", low=1, high=1000),
        Parameter("longest", 600.0, "seconds that a request may take at most, waiting included", low=0.1, high=86_400.0),
        Parameter("grace", 5.0, "seconds after its deadline at which a request is answered without its task", low=0.1, high=600.0),
        Parameter("warm_up", (), "tasks whose models are loaded at activation instead of by the first request"),
        *(parameter for task in TASKS.values() for parameter in task.PARAMETERS),
    )

    def __init__(self) -> None:
        super().__init__("services")
        self._workers: dict[str, Worker] = {}
        self._expiry: Timer | None = None

    def configure(self) -> None:
        for parameter in ("tasks", "warm_up"):
            if unknown := [name for name in self.value(parameter) if name not in TASKS]:
                raise ConfigurationError(f"parameter '{parameter}' names {', '.join(unknown)}; allowed: {', '.join(TASKS)}")
        if not self.value("tasks"):
            raise ConfigurationError(f"parameter 'tasks' is empty; allowed: some of {', '.join(TASKS)}")
        for name in self.value("tasks"):
            TASKS[name](self.value, self.resolve_topic_name).check()
        self._progress = self.create_publisher(msg.ServiceProgress, "~/progress", 100)
        self._expiry = self.create_timer(0.1, self._expire, callback_group=self.free_group)

    def activate(self) -> None:
        waiting, longest, grace = (self.value(name) for name in ("waiting", "longest", "grace"))
        log = self.get_logger().error
        for name in dict.fromkeys(self.value("tasks")):
            # Anew: a thread that was given up may still be at work with an earlier one.
            task = TASKS[name](self.value, self.resolve_topic_name)
            task.open()
            worker = Worker(task, waiting, longest, grace, self._tell, log, task.name in self.value("warm_up"))
            self._workers[task.name] = worker
            self._offer(worker)
        self.offer(srv.CancelRequest, "~/cancel", self._cancel, self.free_group)

    def _offer(self, worker: Worker) -> None:
        """A service that answers when the worker has an answer.

        A coroutine that awaits it would do too, but rclpy's executor goes round and round while one waits; a callback that blocks would
        hold a thread of the executor for each request.
        """
        service = self.offer(worker.task.kind, worker.task.service, lambda request, _: request, self.free_group)
        send = service.send_response

        def answer_later(request: Any, header: Any) -> None:
            def answer(response: Any) -> None:
                with contextlib.suppress(Exception):  # the node is going down, or whoever asked is gone: nobody to tell
                    send(response, header)

            worker.submit(request, answer)

        service.send_response = answer_later

    def deactivate(self) -> None:
        for worker in self._workers.values():
            worker.close()
            worker.task.close()
        self._workers = {}
        super().deactivate()

    def cleanup(self) -> None:
        super().cleanup()
        if self._expiry is not None:
            self.destroy_timer(self._expiry)
            self.destroy_publisher(self._progress)
        self._expiry = None

    def report(self) -> dict[str, str]:
        workers = dict(self._workers)
        details = {f"{name}: {key}": value for name, worker in workers.items() for key, value in worker.state().items()}
        if stuck := [name for name, worker in workers.items() if worker.stuck]:
            details["warning"] = f"still at work on requests that were given up: {', '.join(stuck)}"
        elif failed := {name: worker.failure for name, worker in workers.items() if worker.failure}:
            details["warning"] = "; ".join(f"{name}: {failure}" for name, failure in failed.items())
        return details

    def _expire(self) -> None:
        for worker in list(self._workers.values()):
            worker.expire()

    def _cancel(self, request: srv.CancelRequest.Request, response: srv.CancelRequest.Response) -> srv.CancelRequest.Response:
        response.found = sum(worker.cancel(request.id) for worker in list(self._workers.values())) > 0
        return response

    def _tell(self, report: Report) -> None:
        if not self.context.ok():
            return
        message = msg.ServiceProgress(
            task=report.task,
            id=report.id,
            phase=report.phase,
            step=report.step,
            steps=report.steps,
            seconds=report.seconds,
            message=report.message,
        )
        message.header = conversions.header(self.get_clock().now().nanoseconds)
        message.header.frame_id = ""
        with contextlib.suppress(Exception):  # the publisher goes while a task that was given up still reports
            self._progress.publish(message)


def main() -> None:
    run(ServicesNode)


if __name__ == "__main__":
    main()
