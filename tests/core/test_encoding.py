"""Camera bytes to RGB: every encoding against what it encodes, and every kind of bad input against its error."""

import array
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from penguin_ros.core.encoding import ENCODINGS, rgb_from_compressed, rgb_from_image
from penguin_ros.core.errors import ImageError

RNG = np.random.default_rng(3)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (36, 48, 3), dtype=np.uint8), (0, 0), 3)  # smooth, so subsampled chroma is kept


def planes_of(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma and the two chroma planes, chroma at full size."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return tuple(np.clip(np.round(plane), 0, 255).astype(np.uint8) for plane in (y, u, v))


def packed_422(rgb: np.ndarray, order: str) -> np.ndarray:
    y, u, v = planes_of(rgb)
    out = np.empty((*y.shape, 2), np.uint8)
    out[..., order.index('y')] = y
    chroma = 1 - order.index('y')
    out[:, 0::2, chroma], out[:, 1::2, chroma] = u[:, 0::2], v[:, 0::2]
    return out


def semi_planar(rgb: np.ndarray, first: str) -> np.ndarray:
    y, u, v = planes_of(rgb)
    one, other = (u, v) if first == 'u' else (v, u)
    chroma = np.stack([one[::2, ::2], other[::2, ::2]], axis=2).reshape(y.shape[0] // 2, -1)
    return np.concatenate([y, chroma])


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    out = np.empty(rgb.shape[:2], np.uint8)
    for index, letter in enumerate(pattern):
        out[index // 2::2, index % 2::2] = rgb[index // 2::2, index % 2::2, 'rgb'.index(letter)]
    return out


GREY = np.asarray(RGB[..., 0])
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
ENCODED = {  # encoding: bytes by row, the RGB they stand for, tolerance in grey levels
    'rgb8': (RGB, RGB, 0),
    'bgr8': (RGB[..., ::-1], RGB, 0),
    'rgba8': (np.dstack([RGB, RGB[..., :1]]), RGB, 0),
    'bgra8': (np.dstack([RGB[..., ::-1], RGB[..., :1]]), RGB, 0),
    'mono8': (GREY, GREY_RGB, 0),
    'mono16': ((GREY.astype('<u2') * 257).view(np.uint8), GREY_RGB, 0),
    'yuv422': (packed_422(RGB, 'uy'), RGB, 8), 'uyvy': (packed_422(RGB, 'uy'), RGB, 8),
    'yuv422_yuy2': (packed_422(RGB, 'yu'), RGB, 8), 'yuyv': (packed_422(RGB, 'yu'), RGB, 8),
    'nv12': (semi_planar(RGB, 'u'), RGB, 12), 'nv21': (semi_planar(RGB, 'v'), RGB, 12),
    **{f'bayer_{pattern}8': (mosaic(RGB, pattern), RGB, 12) for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
}


def message(encoding: str, padding: int = 0) -> dict:
    """The fields of an image message, its rows longer by some bytes of padding."""
    rows = np.ascontiguousarray(ENCODED[encoding][0]).reshape(len(ENCODED[encoding][0]), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return {'data': padded.tobytes(), 'encoding': encoding, 'width': 48, 'height': 36, 'step': padded.shape[1]}


def test_every_encoding_is_tested() -> None:
    assert set(ENCODED) == set(ENCODINGS)


@pytest.mark.parametrize('padding', [0, 16])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_an_encoding_gives_back_the_picture(encoding: str, padding: int) -> None:
    rgb = rgb_from_image(**message(encoding, padding))
    _, expected, tolerance = ENCODED[encoding]
    assert rgb.dtype == np.uint8
    assert rgb.shape == (36, 48, 3)
    assert not rgb.flags.writeable
    inside = (slice(4, -4), slice(4, -4)) if tolerance else (slice(None), slice(None))  # mosaics are vague at borders
    assert np.abs(rgb[inside].astype(int) - expected[inside].astype(int)).max() <= tolerance


def test_big_endian_mono16_is_read_as_such() -> None:
    fields = message('mono16') | {'data': (GREY.astype('>u2') * 257).astype('>u2').tobytes(), 'is_bigendian': True}
    assert np.array_equal(rgb_from_image(**fields), GREY_RGB)


@pytest.mark.parametrize('as_buffer', [bytes, bytearray, memoryview, lambda b: array.array('B', b),
                                       lambda b: np.frombuffer(b, np.uint8)])
def test_rgb8_is_a_view_of_any_buffer(as_buffer) -> None:
    fields = message('rgb8', padding=8)
    data = as_buffer(fields['data'])
    rgb = rgb_from_image(**fields | {'data': data})
    assert np.shares_memory(rgb, np.frombuffer(data, np.uint8))
    assert np.array_equal(rgb, RGB)


@pytest.mark.parametrize('change, text', [
    ({'width': 0}, r'0x36 px.*Check the camera driver'),
    ({'height': 0, 'data': b''}, r'48x0 px.*Check the camera driver'),
    ({'width': 16, 'height': 16, 'step': 48, 'data': bytes(768)}, r'16x16 px; it needs at least 28x28.*larger image'),
    ({'width': 8000, 'height': 6000, 'step': 24000, 'data': b''}, r'8000x6000 px, 48000000 pixels.*raise max_image_pixels'),
    ({'step': 143}, r'step is 143 bytes.*needs at least 144'),
    ({'step': 0}, r'step is 0 bytes.*needs at least 144'),
    ({'data': bytes(5183)}, r'5183 bytes; 36 rows of step 144 need 5184'),
    ({'data': bytes(5185)}, r'5185 bytes; 36 rows of step 144 need 5184'),
    ({'encoding': '32FC1'}, r"'32FC1'; it can be rgb8, .*Set the camera driver"),
    ({'encoding': 'nv12', 'height': 35, 'step': 48, 'data': bytes(48 * 52)}, r'48x35 px.*even sides'),
    ({'encoding': 'yuv422', 'width': 47}, r'47x36 px.*even sides'),
])
def test_a_bad_image_says_what_was_found_needed_and_to_do(change: dict, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        rgb_from_image(**message('rgb8') | change)


def compressed(kind: str, pixels: np.ndarray = RGB, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_png_is_exact_and_jpeg_is_close() -> None:
    assert np.array_equal(rgb_from_compressed(compressed('png'), 'rgb8; png compressed'), RGB)
    assert np.abs(rgb_from_compressed(compressed('jpeg', quality=95)).astype(int) - RGB).max() < 24


def test_grey_pngs_of_8_and_16_bits_become_rgb() -> None:
    assert np.array_equal(rgb_from_compressed(compressed('png', GREY)), GREY_RGB)
    assert np.array_equal(rgb_from_compressed(compressed('png', GREY.astype(np.uint16) * 257)), GREY_RGB)


def test_an_orientation_mark_does_not_turn_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert rgb_from_compressed(compressed('jpeg', exif=exif)).shape == RGB.shape


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_cut_off_data_is_an_error_that_names_its_length(kind: str, share: float) -> None:
    data = compressed(kind)
    cut = data[:int(len(data) * share)]
    with pytest.raises(ImageError, match=f'{len(cut)} bytes.*cut off'):
        rgb_from_compressed(cut, kind)


@pytest.mark.parametrize('data', [b'', b'hello', b'\xff\xd8\xff', b'GIF89a' + bytes(40)])
def test_what_is_no_jpeg_or_png_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r'jpeg or png|cut off'):
        rgb_from_compressed(data, 'jpeg')


def test_a_compressed_image_keeps_the_size_limits() -> None:
    with pytest.raises(ImageError, match='needs at least 28x28'):
        rgb_from_compressed(compressed('png', RGB[:16, :16]))
    with pytest.raises(ImageError, match='raise max_image_pixels'):
        rgb_from_compressed(compressed('png'), max_pixels=1000)
    with pytest.raises(ImageError, match='8000x6000 px'):
        rgb_from_compressed(compressed('png', np.zeros((6000, 8000), np.uint8)))


@pytest.mark.parametrize('encoding', [name for name in ENCODINGS if name not in ('nv12', 'nv21', 'uyvy', 'yuyv')])
def test_conversions_equal_cv_bridge(encoding: str) -> None:
    cv_bridge = pytest.importorskip('cv_bridge', reason='needs a full ROS 2: cv_bridge is not installed')
    messages = pytest.importorskip('sensor_msgs.msg')
    fields = message(encoding)
    image = messages.Image(**fields | {'data': array.array('B', fields['data'])})
    assert np.array_equal(rgb_from_image(**fields), cv_bridge.CvBridge().imgmsg_to_cv2(image, 'rgb8'))
