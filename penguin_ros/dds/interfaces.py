"""ROS message types without ROS: objects, CDR bytes and type hashes from interface texts. Knows nothing of DDS.

rosbags does the reading and the bytes. Our own interfaces are read from msg/ srv/ action/, the only place where their fields
are written down; ROS's own come with rosbags, the few it lacks from ros_interfaces.txt.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.core.bus import Message
from penguin_ros.core.encoding import rgb_from_compressed, rgb_from_image
from penguin_ros.core.errors import TransportError
from penguin_ros.shipped import shipped

try:
    from rosbags.interfaces import Nodetype
    from rosbags.serde import SerdeError
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
except ImportError as error:
    raise TransportError(
        f"Messages cannot be read or written: {error}. Install what runs without ROS 2: pip install 'penguin_ros[dds]'."
    ) from error

FieldType = tuple[Any, Any]
"""How rosbags describes a field: its node type, and a name, a size or a further description."""

PACKAGE = 'penguin_ros'
ENCAPSULATION_BYTES = 4             # every CDR text starts with how it is written
EMPTY = 'uint8 structure_needs_at_least_one_member'     # what ROS puts where a message has no field

ACTION_PARTS = {                    # the messages of an action beside goal, result and feedback, as ROS derives them
    'SendGoal_Request': 'unique_identifier_msgs/UUID goal_id\n{action}_Goal goal',
    'SendGoal_Response': 'bool accepted\nbuiltin_interfaces/Time stamp',
    'GetResult_Request': 'unique_identifier_msgs/UUID goal_id',
    'GetResult_Response': 'int8 status\n{action}_Result result',
    'FeedbackMessage': 'unique_identifier_msgs/UUID goal_id\n{action}_Feedback feedback',
}


def interface_folder() -> Path:
    """The folder that holds our msg/, srv/ and action/, in the source tree or wherever the package was installed."""
    return shipped('msg/SceneDescription.msg').parents[1]


def interface_texts() -> Iterator[tuple[str, str]]:
    """Every interface that rosbags does not know, as (ROS type name, text)."""
    blocks = resources.files(__package__).joinpath('ros_interfaces.txt').read_text('utf-8').split('\n== ')
    for block in blocks[1:]:
        name, _, text = block.partition('\n')
        yield name.strip(), text
    for kind in ('msg', 'srv', 'action'):
        for file in sorted((interface_folder() / kind).glob(f'*.{kind}')):
            yield f'{PACKAGE}/{kind}/{file.stem}', file.read_text('utf-8')


def message_texts(name: str, text: str) -> dict[str, str]:
    """The messages one interface stands for: itself, or the parts of a service or an action, by ROS type name."""
    kind = name.split('/')[1]
    if kind == 'msg':
        return {name: text}
    ends = ('Request', 'Response') if kind == 'srv' else ('Goal', 'Result', 'Feedback')
    parts = ('\n' + text).split('\n---')
    if len(parts) != len(ends):
        raise TransportError(f'{name} has {len(parts)} parts; a .{kind} file has {len(ends)}, parted by ---.')
    messages = {f'{name}_{end}': part for end, part in zip(ends, parts)}
    if kind == 'action':
        messages |= {f'{name}_{end}': part.format(action=name) for end, part in ACTION_PARTS.items()}
    return messages


class RosTypes:
    """Every message type this project speaks. Safe to use from any thread once made."""

    def __init__(self) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        found: dict[str, Any] = {}
        for interface, text in interface_texts():
            for name, part in message_texts(interface, text).items():
                has_field = any(line.split('#')[0].strip() and '=' not in line.split('#')[0] for line in part.splitlines())
                # rosbags would file a service's parts under srv/msg; names inside are relative to the package's msg either way
                package, _, short = name.split('/')
                (parsed,) = get_types_from_msg(part if has_field else f'{part}\n{EMPTY}', f'{package}/msg/{short}').values()
                found[name] = parsed
        self._store.register(found)
        self._sequences: dict[str, dict[str, Any]] = {}

    @property
    def store(self) -> Any:
        """The rosbags type store, for its bag reader and writer."""
        return self._store

    def fields(self, type_name: str) -> list[tuple[str, FieldType]]:
        """A type's fields in order, as rosbags describes them."""
        if type_name not in self._store.fielddefs:
            raise TransportError(f'{type_name} is not a known type. Spell it as ROS does, like std_msgs/msg/String.')
        return self._store.fielddefs[type_name][1]

    def type_hash(self, type_name: str) -> str:
        """The type's RIHS01 hash, equal to the one real ROS packages carry."""
        return self._store.hash_rihs01(type_name)

    def new(self, type_name: str, **values: Any) -> Message:
        """A message with the given fields; the others have ROS's default values."""
        fields = self.fields(type_name)
        unknown = values.keys() - {name for name, _ in fields}
        if unknown:
            raise TransportError(f'{type_name} has no field {", ".join(sorted(unknown))}; '
                                 f'it has {", ".join(name for name, _ in fields)}.')
        return self._store.types[type_name](*(
            _plain(values[name], field_type) if name in values else self._default(field_type) for name, field_type in fields))

    def encode(self, message: Message, type_name: str, header: bytes = b'') -> memoryview:
        """A message as little-endian CDR, padded to whole words. ``header``, a multiple of 8 bytes, goes before the fields."""
        self._tidy(message, type_name)
        definition = self._store.get_msgdef(type_name)
        start = ENCAPSULATION_BYTES + len(header)
        size = start + definition.getsize_cdr(0, message, self._store)
        data = memoryview(bytearray((size + 3) & ~3))
        data[:2] = b'\0\1'
        data[ENCAPSULATION_BYTES:start] = header
        definition.serialize_cdr_le(data[start:], 0, message, self._store)
        return data

    def decode(self, data: bytes | memoryview, type_name: str, header_bytes: int = 0) -> Message:
        """The message in CDR bytes; number sequences are read-only views of them. Raises TransportError for broken bytes."""
        view = memoryview(data)
        if len(view) < ENCAPSULATION_BYTES or bytes(view[:2]) not in (b'\0\0', b'\0\1'):
            raise TransportError(f'{len(view)} bytes received as {type_name} are not plain CDR. '
                                 'Let the sender use the XCDR1 data representation, which is the default of ROS 2.')
        definition = self._store.get_msgdef(type_name)
        read = definition.deserialize_cdr_le if view[1] else definition.deserialize_cdr_be
        try:
            message, _ = read(view[ENCAPSULATION_BYTES + header_bytes:], 0, definition.cls, self._store)
        except (SerdeError, ValueError, IndexError, OverflowError, MemoryError, struct.error) as error:
            raise TransportError(f'{len(view)} bytes received as {type_name} do not fit that type ({error}). '
                                 'Build sender and receiver from the same interface files.') from error
        return message

    def _default(self, field_type: FieldType) -> Any:
        kind, what = field_type
        if kind == Nodetype.NAME:
            return self.new(what)
        if kind == Nodetype.BASE:
            return _base_default(what[0])
        element, size = what
        count = size if kind == Nodetype.ARRAY else 0
        dtype = _dtype(element)
        return np.zeros(count, dtype) if dtype is not None else [self._default(element) for _ in range(count)]

    def _tidy(self, message: Message, type_name: str) -> None:
        """Turn number sequences of any kind (bytes, lists, arrays) into the numpy arrays rosbags writes."""
        for name, (dtype, inner, many) in self._sequences_of(type_name).items():
            value = getattr(message, name)
            if dtype is not None:
                if isinstance(value, (bytes, bytearray, memoryview)):
                    setattr(message, name, np.frombuffer(value, dtype))
                elif not isinstance(value, np.ndarray) or value.dtype != dtype or not value.flags.c_contiguous:
                    setattr(message, name, np.ascontiguousarray(value, dtype))
            else:
                for item in value if many else (value,):
                    self._tidy(item, inner)

    def _sequences_of(self, type_name: str) -> dict[str, tuple[Any, str, bool]]:
        """The fields ``_tidy`` looks at: number sequences (dtype, '', False), or messages that hold some (None, type, many)."""
        if type_name not in self._sequences:
            found: dict[str, tuple[Any, str, bool]] = {}
            for name, (kind, what) in self.fields(type_name):
                many = kind in (Nodetype.ARRAY, Nodetype.SEQUENCE)
                element = what[0] if many else (kind, what)
                if many and _dtype(element) is not None:
                    found[name] = (_dtype(element), '', False)
                elif element[0] == Nodetype.NAME and self._sequences_of(element[1]):
                    found[name] = (None, element[1], many)
            self._sequences[type_name] = found
        return self._sequences[type_name]


def rgb_from_msg(image: Message, *, max_pixels: int) -> np.ndarray:
    """Pixels of an Image or CompressedImage message, as Bus.rgb promises."""
    if hasattr(image, 'format'):
        return rgb_from_compressed(image.data, image.format, max_pixels=max_pixels)
    return rgb_from_image(image.data, encoding=image.encoding, width=image.width, height=image.height, step=image.step,
                          is_bigendian=bool(image.is_bigendian), max_pixels=max_pixels)


@functools.cache
def ros_types() -> RosTypes:
    """The types, read once for the process."""
    return RosTypes()


def _plain(value: Any, field_type: FieldType) -> Any:
    """rclpy wants a ``byte`` field as bytes of length one, rosbags as a number; callers write what rclpy wants."""
    return value[0] if field_type[0] == Nodetype.BASE and isinstance(value, bytes) else value


def _base_default(base: str) -> Any:
    return '' if base == 'string' else False if base == 'bool' else 0.0 if base.startswith('float') else 0


def _dtype(field_type: FieldType) -> np.dtype | None:
    """The numpy type of a number field, None for texts and messages."""
    kind, what = field_type
    if kind != Nodetype.BASE or what[0] in ('string', 'wstring'):
        return None
    return np.dtype({'byte': 'uint8', 'char': 'uint8', 'octet': 'uint8', 'bool': 'bool'}.get(what[0], what[0]))
