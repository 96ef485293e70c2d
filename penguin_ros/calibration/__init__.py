"""Finds out, on frames of a camera, how far activations reach and how weights are best rounded. Offline, on a CPU.

The file format is model/calibration.py, the arithmetic of rounding model/quantise.py.
"""
