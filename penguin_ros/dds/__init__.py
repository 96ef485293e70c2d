"""The same node for machines without ROS 2: Cyclone DDS with ROS 2 wire names."""
