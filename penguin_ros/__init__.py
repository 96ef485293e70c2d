"""penguin_ros: grounded captions and region answers from robot cameras with Penguin-VL.

Importing the package imports no torch, ROS, TensorRT, ONNX Runtime or DDS library; each is imported by the room that needs it.
"""

from pkgutil import extend_path

# A source tree on PYTHONPATH would otherwise hide the generated penguin_ros.msg of an installed workspace.
__path__ = extend_path(__path__, __name__)

__version__ = '0.1.0'
