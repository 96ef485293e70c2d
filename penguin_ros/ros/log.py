"""Python's log records go to ROS: console, log file and /rosout. Knows nothing of who logs what."""

from __future__ import annotations

import logging
from typing import Any

from rclpy.node import Node


def logger_of(node: Node) -> logging.Logger:
    logger = logging.Logger(node.get_name(), logging.DEBUG)     # ROS decides what is shown
    logger.addHandler(_ToRos(node.get_logger()))
    return logger


class _ToRos(logging.Handler):
    """Carries Python's log records to ROS, and so to the console, the log file and /rosout."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # One line each: rclpy insists that a line of code always logs with one severity.
        if record.levelno >= logging.CRITICAL:
            self._logger.fatal(text)
        elif record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
