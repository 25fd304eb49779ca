"""What goes wrong in cameras, models, parameters and launchers, and what the user sees of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from system_bench import INSTRUCTION, RELATION_SCORER, Bench, MotionFeedback, own_domain, running_system, write_parameters

from pcm_ros import bringup, msg
from pcm_ros.client import ManipulationClient
from pcm_ros.nodes.conversions import flat
from pcm_ros.nodes.discovery import Repeated
from pcm_ros.nodes.views import view_topic
from pcm_ros.processes import BringupError, Lifecycle, RunningNode, RunningSystem

CAMERAS = ("front", "top")
SCENE = 0
pytestmark = pytest.mark.timeout(600)  # a busy machine is no failure


class CameraDriver:
    """Passes the views of the simulator on, or spoils them on the way."""

    def __init__(self, bench: Bench) -> None:
        self.spoil: dict[str, Callable[[msg.View], msg.View | None]] = {}
        node = bench.client.node
        for camera in CAMERAS:
            publisher = node.create_publisher(msg.View, view_topic(camera), qos_profile_sensor_data)

            def forward(view: msg.View, camera: str = camera, publisher: rclpy.publisher.Publisher = publisher) -> None:
                changed = self.spoil.get(camera, lambda same: same)(view)
                if changed is not None:
                    publisher.publish(changed)

            node.create_subscription(msg.View, f"raw/{camera}", forward, qos_profile_sensor_data)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("faults")
    scorers = {f"scorer_{view}": {**RELATION_SCORER, "view": view} for view in CAMERAS}
    scorers["scorer_nan"] = {"scorer": "scorers_for_tests:SaysNan", "view": "front"}
    scorers["scorer_raises"] = {"scorer": "scorers_for_tests:Raises", "view": "front"}
    scorers["scorer_hangs"] = {"scorer": "scorers_for_tests:HangsAtFirst", "view": "front"}
    scorers["scorer_counts"] = {"scorer": "scorers_for_tests:CountsWrong", "view": "front"}
    raw = {view_topic(camera): f"raw/{camera}" for camera in CAMERAS}
    file = write_parameters(folder / "parameters.yaml", scorers, quorum=0.4, iterations=3, attempts=1, view_timeout=5.0)
    with running_system(folder, file, raw) as running:
        yield running


@pytest.fixture(scope="module")
def cameras(bench: Bench) -> CameraDriver:
    return CameraDriver(bench)


@pytest.fixture(autouse=True)
def good_cameras(cameras: CameraDriver) -> None:
    cameras.spoil.clear()


def stop(_: msg.View) -> None:
    return None


def wrong_encoding(view: msg.View) -> msg.View:
    view.image.encoding = "mono16"
    return view


def zero_depth(view: msg.View) -> msg.View:
    view.depth.data = flat(np.zeros(len(view.depth.data), dtype=np.uint8))
    return view


def test_scorers_that_raise_or_say_nan_or_count_wrong_are_left_out_and_named(bench: Bench) -> None:
    looked_at = bench.client.node.create_subscription(Image, "scorer_counts/annotated", lambda _: None, qos_profile_sensor_data)
    started = time.monotonic()
    outcome, states = bench.manipulate()
    planning = [state for state in states if state.phase == "planning"]
    assert planning and outcome.error != "ERROR"
    for state in planning:
        dropped = dict(zip(state.dropped, state.dropped_reasons, strict=True))
        assert "NaN" in dropped["scorer_nan"]
        assert "ZeroDivisionError: division by zero in this expert" in dropped["scorer_raises"]
        assert "energies of shape (129,) for 128 proposals" in dropped["scorer_counts"] or "(130,) for 129" in dropped["scorer_counts"]
    bench.client.node.destroy_subscription(looked_at)
    hung = [dict(zip(state.dropped, state.dropped_reasons, strict=True)).get("scorer_hangs", "") for state in planning]
    assert hung[0] == "no answer within 10 s"
    assert set(hung[1:3]) == {"still busy with an earlier call"}
    time.sleep(max(0.0, started + 40.0 - time.monotonic()))
    _, states = bench.manipulate()
    assert all("scorer_hangs" not in state.dropped for state in states if state.phase == "planning"), "it takes part when it has come back"
    assert not bench.running.ended()


@pytest.mark.parametrize("fault", [stop, wrong_encoding, zero_depth])
def test_one_bad_camera_is_named_and_the_others_go_on(
    bench: Bench, cameras: CameraDriver, fault: Callable[[msg.View], msg.View | None]
) -> None:
    cameras.spoil["top"] = fault
    time.sleep(3.5)  # until the last good view of this camera is older than view_age
    outcome, states = bench.manipulate()
    observed = [state.message for state in states if state.phase == "observed"]
    assert observed and all("camera 'top' is missing" in text for text in observed)
    assert outcome.error not in ("OBSERVATION", "ERROR")


@pytest.mark.parametrize(
    ("fault", "text"),
    [(stop, "no new view arrived"), (wrong_encoding, "encoding is 'mono16'; allowed: rgb8, bgr8"), (zero_depth, "no return at all")],
)
def test_no_good_camera_ends_the_goal_with_the_reason(
    bench: Bench, cameras: CameraDriver, fault: Callable[[msg.View], msg.View | None], text: str
) -> None:
    for camera in CAMERAS:
        cameras.spoil[camera] = fault
    time.sleep(3.5)
    outcome, _ = bench.manipulate()
    assert outcome.error == "OBSERVATION" and text in outcome.message
    cameras.spoil.clear()
    assert bench.manipulate("put the red mug behind the blue bowl")[0].error != "OBSERVATION"


def test_parameter_out_of_range_is_refused_at_run_time(bench: Bench) -> None:
    client = bench.client.node.create_client(SetParameters, "scorer_front/set_parameters")
    assert client.wait_for_service(60)

    def result_of(value: float) -> SetParametersResult:
        request = SetParameters.Request(parameters=[Parameter("view_timeout", value=value).to_parameter_msg()])
        setting = Repeated(lambda: client.call_async(request))
        return bench.client.wait(setting.answer, 60, meanwhile=setting.poll).results[0]

    refused = result_of(-1.0)
    assert not refused.successful and "view_timeout" in refused.reason
    assert result_of(3.0).successful


def transit(bench: Bench, name: str, *transitions: str) -> None:
    lifecycle = Lifecycle(bench.client.node, name)
    for transition in transitions:
        lifecycle.request(getattr(Transition, f"TRANSITION_{transition}"))
        deadline = time.monotonic() + 120
        while not lifecycle.decided():
            assert time.monotonic() < deadline, (name, transition)
            time.sleep(0.02)
        assert lifecycle.outcome(), (name, transition)
    lifecycle.close()


@pytest.mark.parametrize("name", ["consensus", "sim"])
def test_a_node_that_is_deactivated_at_work_ends_it_safely_and_says_so(bench: Bench, name: str) -> None:
    """The motion has ended when the transition has, the goal gets its result though the node is cleaned up at once, and all goes on."""
    bench.client.reset(SCENE)
    with MotionFeedback(bench.client.node) as motion:
        goal = bench.client.start(INSTRUCTION)
        assert motion.begun.wait(240)
        transit(bench, name, "DEACTIVATE")
        before = motion.count
        time.sleep(1.0)
        assert motion.count == before, "nothing moves any more"
        transit(bench, name, "CLEANUP")
        outcome = goal.result(120)
        assert outcome.error == ("CANCELED" if name == "consensus" else outcome.error) and not outcome.success
        transit(bench, name, "CONFIGURE", "ACTIVATE")
        bench.client.reset(SCENE)
        motion.begun.clear()
        again = bench.client.start(INSTRUCTION)
        assert motion.begun.wait(240)
        again.cancel()
        assert again.result(120).error == "CANCELED"


def test_nodes_that_are_configured_again_work_as_before(bench: Bench) -> None:
    """The simulator forgets what it was asked before, and the consensus node waits for nobody whom it has met since."""
    asked = bench.client.reset(5, "relations-1")
    bench.manipulate(asked)  # all have met
    asked = bench.client.reset(5, "relations-1")
    for name in ("sim", "consensus"):
        transit(bench, name, "DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE")
    assert bench.client.reset(5, "relations-1") == asked
    start = time.monotonic()
    bench.manipulate(asked)
    assert time.monotonic() - start < 50  # startup_timeout is 60


def test_a_cancelled_motion_whose_end_nobody_reports_is_not_called_cancelled(bench: Bench) -> None:
    """Who reads CANCELED takes the arm for stopped."""
    bench.client.reset(SCENE, "demo")
    driver = bench.running.nodes["sim"].process
    with MotionFeedback(bench.client.node) as motion:
        goal = bench.client.start(INSTRUCTION)
        assert motion.begun.wait(240)
        driver.send_signal(signal.SIGSTOP)
        try:
            goal.cancel()
            outcome = goal.result(120)
        finally:
            driver.send_signal(signal.SIGCONT)
    assert outcome.error == "EXECUTION"
    assert "canceled, but the workcell reports an error: the motion was cancelled, but action 'workcell/execute'" in outcome.message
    assert "the arm is not known to have stopped" in outcome.message


def test_nodes_end_with_code_0_and_none_is_left(bench: Bench) -> None:
    """The last test with this system."""
    codes = bench.running.stop()
    assert codes == dict.fromkeys(bench.running.nodes, 0)
    assert not any(psutil.pid_exists(node.process.pid) and node.process.poll() is None for node in bench.running.nodes.values())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["scorer_node", "-p", "scorer:=scorers_for_tests:Missing"], "parameter 'scorer' is 'scorers_for_tests:Missing'"),
        (["scorer_node", "-p", "scorer:=no_such_module:Class"], "No module named 'no_such_module'"),
        (["scorer_node", "-p", "scorer:=scorers_for_tests:NoScorer"], "lacks name, cost, differentiable or energy"),
        (["scorer_node", "-p", "scorer:=scorers_for_tests:Indifferent", "-p", "options:='[1]'"], "must be a YAML mapping"),
        (
            ["scorer_node", "-p", "scorer:=scorers_for_tests:WithWeights", "-p", "options:='{path: missing.safetensors}'"],
            "does not exist; remedy",
        ),
        (["scorer_node", "-p", "scorer:=scorers_for_tests:WithWeights", "-p", "options:='{path: CORRUPT}'"], "is corrupt"),
        (["scorer_node", "-p", "grounders:=[no-such-clip]"], "'no-such-clip' is not a known clip"),
        (["sim_node", "-p", "task:=no-such-task"], "no-such-task"),
        (["consensus_node", "-p", "scorers:=[a, b]"], "'scorers', 'scorer_names', 'scorer_views' have 2, 1, 1 entries"),
        (["consensus_node", "-p", "weights:=[a]"], "'scorer name=number'"),
    ],
)
def test_what_cannot_be_configured_says_why(tmp_path: Path, words: list[str], text: str) -> None:
    """Transition `configure` fails and the log says why; the process stays and can be given other parameters."""
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(b"\x00" * 64)
    words = [word.replace("CORRUPT", str(corrupt)) for word in words]
    parts = bringup.System((bringup.NodeSpec(words[0], "node"),), bringup.folder("config") / "manipulation.yaml")
    with single_node(tmp_path, parts, words[1:]) as attempt, pytest.raises(BringupError) as caught:
        attempt()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["consensus_node", "-p", "quorum:=7.0"], "quorum"),
        (["consensus_node", "-p", "proposals:=0"], "proposals"),
        (["consensus_node", "-p", "aggregate:=mode"], "allowed: sum, median, trimmed_mean"),
        (["scorer_node", "-p", "view_timeout:=-1.0"], "view_timeout"),
        (["sim_node", "-p", "seed:=-1"], "seed"),
        (["sim_node", "-p", "seed:=text"], "seed"),
    ],
)
def test_parameter_out_of_range_ends_the_node_with_code_2(words: list[str], text: str) -> None:
    command = [sys.executable, "-m", f"pcm_ros.nodes.{words[0]}", "--ros-args", *words[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, "ROS_DOMAIN_ID": str(own_domain())}, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "cannot start" in done.stderr and text in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no-such-system"], "unknown system 'no-such-system'; allowed: manipulation"),
        (["manipulation", "colour:=red"], "unknown argument 'colour'; allowed: instruction"),
        (["manipulation", "scene=3"], "not of the form name:=value"),
        (["manipulation", "seed:=-3"], "argument 'seed' is '-3'"),
        (["manipulation", "views:=moon"], "argument 'views' names ['moon']"),
        (["manipulation", "seed:=²"], "argument 'seed' is '²'"),
        (["manipulation", f"config:={sys.executable}"], "cannot be read"),
        (["manipulation", "config:=missing.yaml"], "parameter file 'missing.yaml' cannot be read"),
    ],
)
def test_wrong_launch_arguments(arguments: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pcm_ros.cli", "launch", *arguments], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_pcm_launch_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """Without an instruction it waits; SIGINT and SIGTERM end it with 0, and nodes of a launcher that was killed end themselves."""
    file = write_parameters(tmp_path / "parameters.yaml", {"scorer_front": {**RELATION_SCORER, "view": "front"}})
    variables = {**os.environ, "ROS_DOMAIN_ID": str(own_domain()), "PYTHONPATH": str(Path(__file__).parent), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pcm_ros.cli", "launch", "manipulation", f"config:={file}"]
    process = subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "waiting for goals" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 4, seen
    process.send_signal(number)
    rest, _ = process.communicate(timeout=180)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0), seen + rest
    assert "ended with exit code" not in rest
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_pcm_launch_without_success_exits_with_1(tmp_path: Path) -> None:
    file = write_parameters(tmp_path / "parameters.yaml", {"scorer_front": {**RELATION_SCORER, "view": "front"}})
    variables = {**os.environ, "ROS_DOMAIN_ID": str(own_domain()), "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "pcm_ros.cli", "launch", "manipulation", f"config:={file}", "instruction:=juggle"]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "INVALID_INSTRUCTION" in done.stdout


def test_no_image_is_lost_with_the_shipped_profile(tmp_path: Path) -> None:
    """640x480 views under sensor-data quality of service, from one process to another: Fast DDS's default segment loses all of them."""
    variables = {**os.environ, "ROS_DOMAIN_ID": str(own_domain()), **bringup.environment({})}
    script = Path(__file__).with_name("exchange_images.py")
    listener = subprocess.Popen([sys.executable, str(script), "listen"], env=variables, stdout=subprocess.PIPE, text=True)
    talker = subprocess.Popen([sys.executable, str(script), "talk"], env=variables)
    try:
        output, _ = listener.communicate(timeout=300)
    finally:
        talker.kill()
        talker.wait()
    assert output.split() == [str(number) for number in range(40)]


def test_lost_answers_of_a_transition_are_asked_for_again(tmp_path: Path) -> None:
    """A node whose first answers are lost comes up all the same, and is configured once."""
    parts = bringup.System((bringup.NodeSpec("losing_node", "node"),), bringup.folder("config") / "manipulation.yaml")
    with single_node(tmp_path, parts, [], module="losing_node") as attempt:
        attempt()
    assert (tmp_path / "node.log").read_text().count("configured") == 1


@contextmanager
def single_node(folder: Path, parts: bringup.System, words: list[str], module: str = "") -> Iterator[Callable[[], None]]:
    """A single node on a domain of its own; calling what is yielded brings it up. It must end with code 0."""
    domain = own_domain()
    variables = {**os.environ, **bringup.environment(), "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(Path(__file__).parent)}
    running, spec = RunningSystem(parts, folder), parts.nodes[0]
    module = module or f"pcm_ros.nodes.{spec.executable}"
    command = [sys.executable, "-m", module, "--ros-args", "-r", f"__node:={spec.name}", *words]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bringup.environment().items():
            patch.setenv(name, value)
        with ManipulationClient(domain_id=domain) as client:
            running.nodes[spec.name] = RunningNode(spec, command, variables, folder / "node.log", lambda _name, _line: None)
            try:
                yield lambda: running.activate(client, timeout=180)
            finally:
                codes = running.stop()
    assert codes == {spec.name: 0}


def test_pcm_send_without_a_system(tmp_path: Path) -> None:
    """It says so, names the remedy, and exits with 1."""
    variables = {**os.environ, "ROS_DOMAIN_ID": str(own_domain())}
    command = [sys.executable, "-m", "pcm_ros.cli", "send", INSTRUCTION, "--timeout", "1"]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert "start one with `pcm launch manipulation`" in done.stderr.replace("\n", " ")
