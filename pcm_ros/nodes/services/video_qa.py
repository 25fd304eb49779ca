"""/pcm/answer_video_question: questions about clips, answered by `pcm_ros.tasks.video_qa`."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from pcm_ros import msg, srv
from pcm_ros.consensus import QuorumError
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.nodes import conversions
from pcm_ros.nodes.lifecycle import ConfigurationError, Parameter
from pcm_ros.nodes.services.task import Refused, ServedTask, Work, check_path
from pcm_ros.sight.frames import POLICIES, WIDTH, Clip, UnusableClip, clip_of, read_clip
from pcm_ros.tasks.video_qa import assembly
from pcm_ros.tasks.video_qa.answerer import Answer, Answerer
from pcm_ros.tasks.video_qa.reading import UnusableQuestion, checked_question

MOST_IMAGES = 600
LONGEST_TOPIC = 60.0
PER_SECOND = 10.0
"""Images of a topic that are kept a second, scaled down."""
MOST_TOPICS = 8
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_TO_RGB = {"bgr8": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB, "mono8": cv2.COLOR_GRAY2RGB}
Rgb = npt.NDArray[np.uint8]


def rgb_of(image: Image) -> Rgb:
    """(H, W, 3) uint8 of an image message. Raises Refused for an encoding or a size that does not fit."""
    channels = _CHANNELS.get(image.encoding)
    if channels is None:
        raise Refused("INVALID_REQUEST", f"image encoding is '{image.encoding}'; allowed: {', '.join(_CHANNELS)}")
    row = image.width * channels
    if not row or not image.height or image.step < row or len(image.data) != image.step * image.height:
        size = f"{image.width} x {image.height} '{image.encoding}' with step {image.step} and {len(image.data)} bytes"
        raise Refused("INVALID_REQUEST", f"an image is {size}; its data must be step * height bytes, and step at least a row's")
    pixels = np.frombuffer(image.data, dtype=np.uint8).reshape(image.height, image.step)[:, :row]
    pixels = pixels.reshape(image.height, image.width, channels)
    return np.ascontiguousarray(pixels if image.encoding == "rgb8" else cv2.cvtColor(pixels, _TO_RGB[image.encoding]))


class Topics:
    """The newest images of image topics, heard by a node and a thread of their own.

    Args:
        names: full names of topics that are heard for good.

    Raises Refused, as `listen`.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, collections.deque[tuple[float, Rgb]]] = {}
        self._since: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._subscriptions: dict[str, Any] = {}
        self._kept_for_good = frozenset(names)
        self._node: Any = None
        self._closed = False
        try:
            for name in names:
                self.listen(name)
        except Refused:
            self.close()
            raise

    def listen(self, name: str) -> None:
        """Hear a topic from now on; one more than MOST_TOPICS takes the place of another. Raises Refused for a name that cannot be one."""
        with self._lock:
            if self._closed:
                raise Refused("CANCELED", "the node was deactivated")
            if name in self._heard:
                self._asked[name] = time.monotonic()
                return
            if self._node is None:
                # Without the process's arguments: its `__node` would give this node the name of the services' node, whose parameters it
                # would then answer for.
                self._node = rclpy.create_node(
                    "video_listener", use_global_arguments=False, start_parameter_services=False, enable_rosout=False
                )
                self._executor = SingleThreadedExecutor(context=self._node.context)
                self._executor.add_node(self._node)
                threading.Thread(target=self._spin, args=(self._executor,), name="video listener", daemon=True).start()
            if len(self._heard) >= MOST_TOPICS:
                self._make_room()
            kept: collections.deque[tuple[float, Rgb]] = collections.deque(maxlen=int(LONGEST_TOPIC * PER_SECOND))
            try:
                heard = self._node.create_subscription(Image, name, lambda image: self._keep(kept, image), qos_profile_sensor_data)
            except Exception as error:  # rclpy's for names, which share no class
                raise Refused("INVALID_REQUEST", f"topic is '{name}': {error}") from error
            self._subscriptions[name] = heard
            self._heard[name], self._since[name] = kept, time.monotonic()
            self._asked[name] = self._since[name]
            self._executor.wake()

    def close(self) -> None:
        """Hear nothing any more."""
        with self._lock:
            if self._node is not None:
                self._executor.shutdown(timeout_sec=1.0)
                self._node.destroy_node()
            self._node, self._closed, self._heard, self._since = None, True, {}, {}

    def _make_room(self) -> None:
        """Let go of the topic that was asked about longest ago, unless it is to be heard for good."""
        left = [name for name in self._asked if name not in self._kept_for_good]
        if not left:
            raise Refused("INVALID_REQUEST", f"{MOST_TOPICS} topics are heard for good (parameter 'video_qa.topics'), which is the most")
        oldest = min(left, key=self._asked.__getitem__)
        self._node.destroy_subscription(self._subscriptions.pop(oldest))
        for known in (self._heard, self._since, self._asked):
            del known[oldest]

    def last(self, name: str, seconds: float) -> tuple[list[Rgb], list[float]]:
        """Images of the last seconds and the times at which they came."""
        with self._lock:
            kept = list(self._heard[name])
        begin = time.monotonic() - seconds
        found = [(when, image) for when, image in kept if when >= begin and image.shape == kept[-1][1].shape]
        return [image for _, image in found], [when for when, _ in found]

    def since(self, name: str) -> float:
        """time.monotonic() from which a topic is heard."""
        return self._since[name]

    @staticmethod
    def _spin(executor: SingleThreadedExecutor) -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    @staticmethod
    def _keep(kept: collections.deque[tuple[float, Rgb]], image: Image) -> None:
        now = time.monotonic()
        if kept and now - kept[-1][0] < 0.9 / PER_SECOND:
            return
        try:
            rgb = rgb_of(image)
        except Refused:
            return  # an encoding that cannot be read: a request about the topic says that no image came
        high = max(8, round(rgb.shape[0] * WIDTH / rgb.shape[1]))
        kept.append((now, np.asarray(cv2.resize(rgb, (WIDTH, high), interpolation=cv2.INTER_AREA) if rgb.shape[1] > WIDTH else rgb)))


class VideoQuestions(ServedTask):
    """Questions about clips. One at a time: the experts keep what they made of the newest clips."""

    name, service, kind = "video_qa", "pcm/answer_video_question", srv.AnswerVideoQuestion
    PARAMETERS = (
        Parameter("video_qa.frames", assembly.FRAMES, "frames of a clip that are looked at, where the request says 0", low=1, high=64),
        Parameter("video_qa.model", "", "GGUF file or folder of the language model; empty: the embedded one"),
        Parameter("video_qa.strategy", "words", "words (fast) or gradient (the paper's way)", choices=assembly.STRATEGIES),
        Parameter("video_qa.topics", (), f"image topics that are heard from the activation on, at most {MOST_TOPICS}"),
    )

    def __init__(self, value: Callable[[str], Any], resolve: Callable[[str], str] = lambda name: name) -> None:
        super().__init__(value, resolve)
        self._topics = Topics()

    def check(self) -> None:
        """Raises ConfigurationError: a model that is not there, names that are none, or too many of them."""
        check_path("video_qa.model", self.value("video_qa.model"))
        names = self.value("video_qa.topics")
        for name in names:
            try:
                self.resolve(name)
            except Exception as error:  # rclpy's for names, which share no class
                raise ConfigurationError(f"parameter 'video_qa.topics' names '{name}', which is no name of a topic: {error}") from error
        if len(set(names)) > MOST_TOPICS:
            raise ConfigurationError(f"parameter 'video_qa.topics' names {len(set(names))} topics; allowed: at most {MOST_TOPICS}")

    def open(self) -> None:
        """Raises Refused."""
        self._topics = Topics(list(dict.fromkeys(self.resolve(name) for name in self.value("video_qa.topics"))))

    def answer(self, request: Any, work: Work) -> Any:
        """Raises Refused."""
        if request.seed >= 2**63:
            raise Refused("INVALID_REQUEST", f"seed is {request.seed}; allowed: 0 to 2**63 - 1")
        try:
            checked_question(request.question)
            clip = self._clip(request, work)
            work.report(1, 4, "loading models")
            answerer = self._answerer()
            if work.left <= 0:
                raise Refused("DEADLINE", "the deadline came before work began")
            for step, found in enumerate(answerer.iterate(clip, request.question, request.seed, work.left, work.stop)):
                if isinstance(found, Answer):
                    return response_of(found, clip, work)
                work.report(step + 2, 4, f"{found.stage} {found.text}")
        except (UnusableClip, UnusableQuestion, ValueError) as error:
            raise Refused("INVALID_REQUEST", str(error)) from error
        except ModelUnavailable as error:
            raise Refused("MODEL", str(error)) from error
        except QuorumError as error:
            raise Refused("QUORUM", str(error)) from error
        raise AssertionError("iterate ends with an Answer")

    def warm_up(self) -> None:
        """Raises ModelUnavailable."""
        self._answerer()

    def close(self) -> None:
        """Hear no topic any more."""
        self._topics.close()

    def _answerer(self) -> Answerer:
        model = self.value("video_qa.model")
        return assembly.answerer(model=Path(model) if model else None, strategy=self.value("video_qa.strategy"))

    def _clip(self, request: Any, work: Work) -> Clip:
        given = [name for name in ("images", "file", "topic") if getattr(request, name)]
        if len(given) != 1:
            raise Refused("INVALID_REQUEST", f"the clip is given by {given or 'nothing'}; allowed: exactly one of images, file, topic")
        count, policy = int(request.frames or self.value("video_qa.frames")), request.policy or "uniform"
        if policy not in POLICIES:
            raise Refused("INVALID_REQUEST", f"policy is '{policy}'; allowed: {', '.join(POLICIES)}")
        if request.file:
            return read_clip(request.file, count, policy, deadline=work.deadline)  # type: ignore[arg-type]
        if request.images:
            if len(request.images) > MOST_IMAGES:
                raise Refused("INVALID_REQUEST", f"{len(request.images)} images; allowed: at most {MOST_IMAGES}")
            stamps = [conversions.nanoseconds_of(image.header.stamp) / 1e9 for image in request.images]
            times = stamps if all(b > a for a, b in itertools.pairwise(stamps)) else None
            return clip_of([rgb_of(image) for image in request.images], times, count, policy)  # type: ignore[arg-type]
        return self._heard(request, count, policy, work)

    def _heard(self, request: Any, count: int, policy: Any, work: Work) -> Clip:
        seconds = request.seconds
        if not (math.isfinite(seconds) and 0 < seconds <= LONGEST_TOPIC):
            raise Refused("INVALID_REQUEST", f"seconds is {seconds}; allowed with a topic: above 0, at most {LONGEST_TOPIC:g}")
        try:
            topic = self.resolve(request.topic)
        except Exception as error:  # as in `check`
            raise Refused("INVALID_REQUEST", f"topic is '{request.topic}': {error}") from error
        self._topics.listen(topic)
        while (missing := self._topics.since(topic) + seconds - time.monotonic()) > 0:
            if work.stop():
                raise Refused("CANCELED", "cancelled while it listened")
            if missing > work.left:
                raise Refused(
                    "DEADLINE", f"topic '{request.topic}' has to be heard for {missing:.1f} s more, and {work.left:.1f} s are left"
                )
            work.report(0, 4, f"listening, {missing:.1f} s more")
            time.sleep(min(0.2, missing))
        images, times = self._topics.last(topic, seconds)
        if not images:
            allowed = ", ".join(_CHANNELS)
            raise Refused("NO_IMAGES", f"no image came on '{request.topic}' within {seconds:g} s (encodings that are read: {allowed})")
        return clip_of(images, times, count, policy, request.topic)


def response_of(answer: Answer, clip: Clip, work: Work) -> Any:
    """The response that says what was found."""
    response = srv.AnswerVideoQuestion.Response()
    if not answer.text and answer.reason == "deadline":
        response.error_code, response.error_msg = response.DEADLINE, "the deadline came before an answer was found; remedy: a later one"
    if answer.reason == "cancelled":
        response.error_code, response.error_msg = response.CANCELED, "cancelled"
    response.partial, response.reason, response.clip_problem = not answer.complete, answer.reason, clip.problem
    response.answer, response.energy = answer.text, float(answer.total)
    response.runner_up_answers = [one.text for one in answer.runners_up]
    response.runner_up_energies = [float(one.total) for one in answer.runners_up]
    response.scores = conversions.score_messages([answer.energies, *(one.energies for one in answer.runners_up)] if answer.text else [])
    response.times = [float(t) for t in answer.times]
    response.carrying = list(answer.frames)
    response.carrying_images = [_image(clip, t) for t in answer.frames]
    response.frame_scores = [
        msg.Score(scorer=name, energies=[float(e) for e in energies]) for name, energies in sorted(answer.frame_energies.items())
    ]
    response.agreement, response.things = float(answer.agreement), list(answer.things)
    response.waited = work.started - work.arrived
    response.seconds = time.monotonic() - work.arrived
    response.dropped = sorted(answer.dropped)
    response.dropped_reasons = [answer.dropped[name] for name in sorted(answer.dropped)]
    return response


def _image(clip: Clip, frame: int) -> Image:
    height, width = clip.frames.shape[1:3]
    data = conversions.flat(np.ascontiguousarray(clip.frames[frame]))
    header = Header(stamp=conversions.time_message(int(clip.times[frame] * 1e9)))  # seconds of the clip, in no frame of the cell
    return Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width, data=data)
