"""Reads and writes recordings: .mcap files, and rosbag2 folders for reading. Knows rosbags, but neither DDS nor the node.

A recording that is cut off is read up to where it ends; ``damage`` then says what is missing.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from penguin_ros.core.errors import RecordingError
from penguin_ros.dds.interfaces import RosTypes

IMAGE_TYPES = {'sensor_msgs/msg/Image': False, 'sensor_msgs/msg/CompressedImage': True}     # and whether compressed

# https://mcap.dev/spec: a file is MAGIC, records of one byte kind and eight bytes length, a footer record, MAGIC.
MAGIC = b'\x89MCAP0\r\n'
RECORD_HEAD = struct.Struct('<BQ')
DATA_END, FOOTER = 0x0F, 0x02
EMPTY_DATA_END = RECORD_HEAD.pack(DATA_END, 4) + bytes(4)
EMPTY_FOOTER = RECORD_HEAD.pack(FOOTER, 20) + bytes(20)     # says that there is no index


@dataclass(frozen=True)
class Recorded:
    """One message of a recording; ``data`` is CDR, ``time_ns`` when it was recorded."""

    topic: str
    type_name: str
    time_ns: int
    data: bytes


class Recording:
    """An open recording."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''            # what is wrong with the file, as far as has been found out
        self._cleanup = contextlib.ExitStack()
        try:
            self._reader = self._open()
            self._cleanup.callback(self._reader.close)
        except BaseException:
            self._cleanup.close()
            raise
        self.topics = {connection.topic: connection.msgtype for connection in self._reader.connections}

    def image_topics(self) -> list[str]:
        return [topic for topic, type_name in self.topics.items() if type_name in IMAGE_TYPES]

    def count(self, topics: Collection[str]) -> int:
        """How many messages the topics have."""
        return sum(connection.msgcount for connection in self._reader.connections if connection.topic in topics)

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """The topics' messages in the order of their time. Ends early where the file is damaged, and notes it."""
        wanted = [connection for connection in self._reader.connections if connection.topic in topics]
        if not wanted:
            return
        # A file without an index is read as it was written; rosbags refuses to where times are not in order.
        scan: Any = getattr(self._reader.storage, 'messages_scan', None)
        indexed = scan is None or self._reader.storage.chunks
        found = self._reader.messages(wanted) if indexed else scan(wanted)
        try:
            for connection, time_ns, data in found:
                yield Recorded(connection.topic, connection.msgtype, time_ns, bytes(data))
        except GeneratorExit:
            raise
        except Exception as error:      # whatever zstd, lz4, SQLite or rosbags raise on broken bytes
            self.damage = self.damage or f'{self.path} is damaged: {error}'

    def close(self) -> None:
        self._cleanup.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _open(self) -> Any:
        rosbag2 = _rosbag2()
        try:
            reader = rosbag2.Reader(self.path)
            reader.open()
            return reader
        except FileNotFoundError as error:
            raise RecordingError(f'{self.path} does not exist. Give an .mcap file, or the folder of a rosbag2 recording.'
                                 ) from error
        except Exception as error:
            if self.path.suffix == '.mcap' and self.path.is_file():
                mended = self._mended_copy(error)
                with contextlib.suppress(Exception):    # the first error tells more
                    reader = rosbag2.Reader(mended)
                    reader.open()
                    return reader
            raise RecordingError(f'{self.path} cannot be read as a recording: {error}. Check that it is an .mcap file or a '
                                 'rosbag2 folder, and whole.') from error

    def _mended_copy(self, why: Exception) -> Path:
        """A copy of the whole records of a cut-off .mcap, ended as a file without an index is."""
        with self.path.open('rb') as source:
            end = _end_of_whole_records(source)
            if end is None:
                raise RecordingError(f'{self.path} is no .mcap file, or nothing of it is left to read ({why}). '
                                     'Check what was copied.') from why
            source.seek(0)
            folder = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix='penguin_recording_'))
            copy = Path(folder) / 'mended.mcap'
            with copy.open('wb') as target:
                left = end
                while left:
                    piece = source.read(min(left, 1 << 20))
                    target.write(piece)
                    left -= len(piece)
                target.write(EMPTY_DATA_END + EMPTY_FOOTER + MAGIC)
        size = self.path.stat().st_size
        self.damage = (f'{self.path} is cut off: {end} of its {size} bytes are whole records, what was recorded after them is '
                       'lost. Copy it again if there is a whole one.')
        return copy


def _end_of_whole_records(source: BinaryIO) -> int | None:
    """Where the last whole record of the data ends; None if there is not even one behind the header."""
    size = source.seek(0, 2)
    source.seek(0)
    if source.read(len(MAGIC)) != MAGIC:
        return None
    end, records = source.tell(), 0
    while end + RECORD_HEAD.size <= size:
        kind, length = RECORD_HEAD.unpack(source.read(RECORD_HEAD.size))
        if kind in (0, DATA_END, FOOTER) or end + RECORD_HEAD.size + length > size:
            break
        end = source.seek(end + RECORD_HEAD.size + length)
        records += 1
    return end if records > 1 else None


class RecordingWriter:
    """Writes a new .mcap file. It appears under its name once it is closed, whole."""

    def __init__(self, path: Path, ros_types: RosTypes, *, overwrite: bool = False) -> None:
        if path.suffix != '.mcap':
            raise RecordingError(f'{path} does not end in .mcap; recordings are written in that format only. Rename it.')
        if path.exists() and not overwrite:
            raise RecordingError(f'{path} exists already and would be lost. Remove it or choose another name.')
        self.path = path
        self._types = ros_types
        self._connections: dict[str, Any] = {}
        rosbag2 = _rosbag2()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = tempfile.TemporaryDirectory(dir=path.parent, prefix='.recording_')
        except OSError as error:
            raise RecordingError(f'{path} cannot be written: {error}. Choose a folder that can be written to.') from error
        self._folder = Path(self._scratch.name) / path.stem     # rosbags writes a folder; the .mcap in it stands alone
        self._bag = rosbag2.Writer(self._folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._bag.open()

    def write(self, topic: str, type_name: str, data: bytes | memoryview, time_ns: int) -> None:
        """Add a message that is CDR already."""
        if topic not in self._connections:
            self._connections[topic] = self._bag.add_connection(topic, type_name, typestore=self._types.store)
        try:
            self._bag.write(self._connections[topic], time_ns, data)
        except OSError as error:
            raise RecordingError(f'{self.path} cannot be written on: {error}. Make room on the disk.') from error

    def close(self) -> None:
        self._bag.close()
        shutil.move(self._folder / f'{self._folder.name}.mcap', self.path)
        self._scratch.cleanup()

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):     # a replay that was stopped keeps what it has
            self.close()
        else:
            self._bag.abort()
            self._scratch.cleanup()


def _rosbag2() -> Any:
    from rosbags import rosbag2  # interfaces.py, imported above, has said what to do where it is missing
    return rosbag2
