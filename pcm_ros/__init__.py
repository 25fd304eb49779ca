"""pcm_ros: pre-trained models that come to an agreement (iterative consensus), and a robot that acts on it."""

from __future__ import annotations

import os
import sys
import tempfile

__version__ = "0.1.0"

# ROS 2 wheels set no ament prefix, and rclpy refuses to start without a folder for its log.
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
if not os.environ.get("HOME"):
    os.environ.setdefault("ROS_LOG_DIR", os.path.join(tempfile.gettempdir(), "ros-log"))
