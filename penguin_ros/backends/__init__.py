"""Ways to run an engine: ONNX Runtime on a CPU, TensorRT on a robot, PyTorch as the reference."""
