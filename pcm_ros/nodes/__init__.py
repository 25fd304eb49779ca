"""ROS 2 nodes: thin shells around pcm_ros.tasks; no algorithm lives here."""
