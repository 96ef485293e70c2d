"""What can go wrong. Every message says what was found, what was needed and what to do about it.

Raised where the cause is known, caught and logged once at the edge (worker, shell or command line).
"""


class PenguinError(Exception):
    """Anything penguin_ros raises on purpose; the text is fit to be shown to a user."""


class ConfigError(PenguinError):
    """A setting has a value it cannot have."""


class BudgetError(PenguinError):
    """A token budget cannot be met by any sharing of tokens."""


class ImageError(PenguinError):
    """A camera image cannot be used: its bytes do not fit its size, or its encoding or size is not supported."""


class StampError(PenguinError):
    """A stamp is zero, jumps back, or lies outside what the window holds."""


class QuestionError(PenguinError):
    """A question cannot be asked: too long, about an unknown camera, or about a region outside the image."""


class DeadlineError(PenguinError):
    """An answer was not ready in time."""


class CancelledError(PenguinError):
    """Whoever asked no longer wants the answer."""


class CheckpointError(PenguinError):
    """A checkpoint folder is incomplete, cut off, or holds tensors that do not fit its configuration."""


class CalibrationError(PenguinError):
    """A calibration is missing or of other weights, or shows that numbers would not fit their type."""


class EngineError(PenguinError):
    """An engine could not be loaded or failed while it ran."""


class EngineMismatchError(EngineError):
    """An engine file is not the one its manifest describes, or not made for this machine."""


class RecordingError(PenguinError):
    """A recording cannot be read or written."""


class TransportError(PenguinError):
    """The middleware is missing or refused something."""
