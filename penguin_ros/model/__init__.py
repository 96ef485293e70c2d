"""Penguin-VL in PyTorch: definition, checkpoints, export. Used offline, never on a robot."""
