"""The bytes of a camera message become RGB pixels. Knows nothing of messages, middlewares or of what pixels are for.

Conversions equal cv_bridge's, whose names for encodings (sensor_msgs/image_encodings) are used. rgb8 is a view of the data;
1280x720 bgr8 costs 0.1 ms on one core, yuv and bayer 0.4 ms, a JPEG 10 ms.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from penguin_ros.core.errors import ImageError

MIN_SIDE_PX = 28                # one visual token; nothing can be seen in less
MAX_PIXELS = 16_000_000         # 48 MB as RGB; beyond it the resize alone takes longer than a frame's time

Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Layout:
    """How an encoding lays out its bytes: of one pixel in a row, planes below the first, and sides that must be even."""

    pixel_bytes: int
    convert: Convert            # uint8 rows [rows, width * pixel_bytes], reshaped to (rows, width, pixel_bytes) -> RGB
    extra_rows: bool = False    # chroma rows below, half as many as the picture has
    even_width: bool = False
    even_height: bool = False

    def rows(self, height: int) -> int:
        return height + height // 2 if self.extra_rows else height


def _by_opencv(code: int) -> Convert:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _luma16(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.convertScaleAbs(pixels, alpha=255 / 65535), cv2.COLOR_GRAY2RGB)


_UYVY = _Layout(2, _by_opencv(cv2.COLOR_YUV2RGB_UYVY), even_width=True)
_YUY2 = _Layout(2, _by_opencv(cv2.COLOR_YUV2RGB_YUY2), even_width=True)

# OpenCV names a Bayer pattern by its second row, ROS by its first.
_LAYOUTS = {
    'rgb8': _Layout(3, lambda pixels: pixels),
    'bgr8': _Layout(3, _by_opencv(cv2.COLOR_BGR2RGB)),
    'rgba8': _Layout(4, _by_opencv(cv2.COLOR_RGBA2RGB)),
    'bgra8': _Layout(4, _by_opencv(cv2.COLOR_BGRA2RGB)),
    'mono8': _Layout(1, _by_opencv(cv2.COLOR_GRAY2RGB)),
    'mono16': _Layout(2, _luma16),
    'yuv422': _UYVY, 'uyvy': _UYVY,
    'yuv422_yuy2': _YUY2, 'yuyv': _YUY2,
    'nv12': _Layout(1, _by_opencv(cv2.COLOR_YUV2RGB_NV12), extra_rows=True, even_width=True, even_height=True),
    'nv21': _Layout(1, _by_opencv(cv2.COLOR_YUV2RGB_NV21), extra_rows=True, even_width=True, even_height=True),
    'bayer_rggb8': _Layout(1, _by_opencv(cv2.COLOR_BayerBG2RGB)),
    'bayer_bggr8': _Layout(1, _by_opencv(cv2.COLOR_BayerRG2RGB)),
    'bayer_gbrg8': _Layout(1, _by_opencv(cv2.COLOR_BayerGR2RGB)),
    'bayer_grbg8': _Layout(1, _by_opencv(cv2.COLOR_BayerGB2RGB)),
}
ENCODINGS = tuple(_LAYOUTS)


def rgb_from_image(data: Any, *, encoding: str, width: int, height: int, step: int, is_bigendian: bool = False,
                   max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The bytes of a sensor_msgs/Image as RGB uint8 [height, width, 3], read-only; for rgb8 a view of ``data``.

    ``data`` is anything with the buffer protocol. Raises ImageError where size, step, length or encoding do not fit.
    """
    layout = check_image(data, encoding=encoding, width=width, height=height, step=step, max_pixels=max_pixels)
    rows, row_bytes = layout.rows(height), width * layout.pixel_bytes
    pixels = np.frombuffer(data, dtype=np.uint8).reshape(rows, step)[:, :row_bytes]
    if encoding == 'mono16':
        pixels = np.ascontiguousarray(pixels).view('>u2' if is_bigendian else '<u2').astype(np.uint16, copy=False)
    elif layout.pixel_bytes > 1:
        # Splitting the last axis of a view with padded rows still copies nothing.
        pixels = pixels.reshape(rows, width, layout.pixel_bytes)
    return _read_only(layout.convert(pixels))


def check_image(data: Any, *, encoding: str, width: int, height: int, step: int, max_pixels: int = MAX_PIXELS) -> _Layout:
    """How the image is laid out. Raises ImageError where size, step, length or encoding do not fit."""
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError(f'the image encoding is {encoding!r}; it can be {", ".join(ENCODINGS)}. '
                         'Set the camera driver to one of these.')
    _check_size(width, height, max_pixels)
    if (layout.even_width and width % 2) or (layout.even_height and height % 2):
        raise ImageError(f'a {encoding} image is {width}x{height} px; it shares colour between pairs of pixels and needs '
                         'even sides. Set an even size in the camera driver.')
    row_bytes, rows = width * layout.pixel_bytes, layout.rows(height)
    if step < row_bytes:
        raise ImageError(f'the image step is {step} bytes; a row of {width} px in {encoding} needs at least {row_bytes}. '
                         'Fix step (or encoding) in the camera driver.')
    data_bytes = memoryview(data).nbytes
    if data_bytes != step * rows:
        raise ImageError(f'the image data has {data_bytes} bytes; {rows} rows of step {step} need {step * rows}. '
                         'Fix the length of data, height or step in the camera driver.')
    return layout


def rgb_from_compressed(data: Any, format: str = '', *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The bytes of a sensor_msgs/CompressedImage (JPEG or PNG) as RGB uint8 [height, width, 3], read-only.

    ``format`` is the message's own description, used in errors only: the data says itself what it is. Orientation marks
    are ignored, as a camera's geometry must not change. Raises ImageError for anything else, and for data cut off.
    """
    raw = bytes(data)
    if not raw.startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n')):
        raise ImageError(f'the compressed image (format {format!r}, {len(raw)} bytes) is neither JPEG nor PNG. '
                         'Publish jpeg or png, or the raw image.')
    try:
        with Image.open(io.BytesIO(raw), formats=('JPEG', 'PNG')) as image:
            _check_size(image.width, image.height, max_pixels)
            if image.mode.startswith('I'):  # 16 bits of grey
                return _read_only(_luma16(np.asarray(image).astype(np.uint16)))
            return _read_only(np.asarray(image.convert('RGB')))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f'the compressed image (format {format!r}, {len(raw)} bytes) cannot be decoded: {error}. '
                         'It was cut off or damaged on the way; check the camera driver and the network.') from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise ImageError(f'the image is {width}x{height} px; it needs a width and a height. Check the camera driver.')
    if width < MIN_SIDE_PX or height < MIN_SIDE_PX:
        raise ImageError(f'the image is {width}x{height} px; it needs at least {MIN_SIDE_PX}x{MIN_SIDE_PX}, the size of one '
                         'visual token. Publish a larger image.')
    if width * height > max_pixels:
        raise ImageError(f'the image is {width}x{height} px, {width * height} pixels; at most {max_pixels} are accepted. '
                         'Lower the resolution of the camera, or raise max_image_pixels.')


def _read_only(rgb: np.ndarray) -> np.ndarray:
    view = rgb.view()
    view.flags.writeable = False
    return view
