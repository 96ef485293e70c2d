"""The ROS 2 shell. Needs a sourced ROS 2."""
