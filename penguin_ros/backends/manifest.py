"""The manifest beside built engines: what they were made of, hashed. Knows nothing of how an engine runs.

An engine is loaded only if every file in its folder still is the one that was built: a TensorRT engine is executable code,
and a graph with other weights gives wrong answers without a word. So the hashes are worked out anew before anything is
deserialised. This reads every byte once, at about 1.2 GB/s on one free x86 core with SHA instructions and slower without
(4.3 GB of Penguin-VL-2B: 4 s per start, when the disk keeps up). The manifest itself ends with a seal, the hash of its own
text. All this finds what was changed or mixed up; it is no signature, so who may write into the folder is checked too
(ownership.py).
Source: reference/tensorrt.md 8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import penguin_ros
from penguin_ros.core.engine import LanguageSpec, VisionSpec
from penguin_ros.core.errors import EngineMismatchError

MANIFEST_FILE = 'manifest.json'
FORMAT = 1
SEAL = 'seal'
_CHUNK_BYTES = 1 << 22
_HASH_DIGITS = 12           # of the engine hash that messages carry
_NOT_IDENTITY = {'recipe', 'engine_hash'}   # where the recipe lies changes nothing in the engine


@dataclass(frozen=True)
class TensorPort:
    """One input or output of a graph; a dimension is a number or the name of one that varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Profile:
    """Shapes an engine was tuned for: least, usual and most of every dimension that varies, by its name."""

    name: str
    dims: Mapping[str, tuple[int, int, int]]

    def shapes(self, port: TensorPort) -> tuple[tuple[int, ...], ...]:
        """The least, usual and largest shape of one input."""
        return tuple(tuple(size if isinstance(size, int) else self.dims[size][corner] for size in port.shape)
                     for corner in range(3))


@dataclass(frozen=True)
class GraphEntry:
    """The file a backend loads, and what goes in and out of it."""

    file: str
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]
    profiles: tuple[Profile, ...] = ()      # of a compiled engine


@dataclass(frozen=True)
class TableEntry:
    """Where the embeddings of all token ids lie: rows and columns of ``dtype`` from byte ``offset`` on."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class FileEntry:
    nbytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about one folder of built engines."""

    backend: str
    model: str                              # name published with every message
    precision: str
    vision_spec: VisionSpec
    language_spec: LanguageSpec
    vision: GraphEntry
    language: GraphEntry
    embeddings: TableEntry
    ranges: Mapping[str, tuple[int, int]]   # least and most of every dimension that varies
    files: Mapping[str, FileEntry]          # everything a run reads, by name in the folder
    recipe: str = ''                        # what to give to `penguin build`
    builder: str = f'penguin_ros {penguin_ros.__version__}'
    details: Mapping[str, str] = field(default_factory=dict)    # what else the backend must find again (driver, GPU, ...)
    options: Mapping[str, str] = field(default_factory=dict)    # how it was built: of a compiled engine, of rounded weights
    sources: Mapping[str, FileEntry] = field(default_factory=dict)  # what it was built from; may be deleted, not changed

    @property
    def engine_hash(self) -> str:
        """Short name of exactly these engines: same ingredients, same name."""
        identity = {key: value for key, value in _to_json(self).items() if key not in _NOT_IDENTITY}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:_HASH_DIGITS]

    @property
    def remedy(self) -> str:
        return f'Build it again: penguin build {self.recipe or "RECIPE"}'


def hash_file(path: Path) -> FileEntry:
    """Size and sha256, read in pieces."""
    digest, nbytes = hashlib.sha256(), 0
    with path.open('rb') as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
            nbytes += len(piece)
    return FileEntry(nbytes, digest.hexdigest())


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    return {name: hash_file(folder / name) for name in sorted(set(names))}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, last of all files of a build; it appears whole or not at all."""
    content = {**_to_json(manifest), 'engine_hash': manifest.engine_hash}
    write_whole(folder / MANIFEST_FILE, _sealed(content).encode())


def write_whole(path: Path, content: Any) -> None:
    """Write bytes, or anything that lends its bytes, to a file that appears only when all of it is on the disk."""
    unfinished = path.with_name(path.name + '.unfinished')
    with unfinished.open('wb') as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, path)


def read_manifest(folder: str | Path, *, backend: str | None = None) -> Manifest:
    """Read a folder's manifest without touching its files; ``backend`` is the one that wants to load it, if any."""
    path = Path(folder) / MANIFEST_FILE
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
    except FileNotFoundError:
        raise EngineMismatchError(f'{folder} has no {MANIFEST_FILE}: it holds no built engine. Name a folder with one, or make '
                                  'one: penguin build RECIPE (recipes are in engines/*.yaml)') from None
    except (OSError, ValueError) as error:
        raise EngineMismatchError(f'{path} cannot be read ({error}). Build it again: penguin build RECIPE') from error
    recipe = content.get('recipe') if isinstance(content, dict) else None
    remedy = f'Build it again: penguin build {recipe or "RECIPE"}'
    found = content.get('format') if isinstance(content, dict) else None
    if found != FORMAT:
        raise EngineMismatchError(f'{path} has format {found!r}; this version reads {FORMAT}. {remedy}')
    try:
        manifest = _from_json(content)
        stated = content['engine_hash']
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineMismatchError(f'{path} is incomplete ({error!r}). {remedy}') from error
    if stated != manifest.engine_hash:
        raise EngineMismatchError(f'{path} states the engine hash {stated}; its content has {manifest.engine_hash}: it was '
                                  f'changed after the build. {remedy}')
    if text != _sealed({name: value for name, value in content.items() if name != SEAL}):
        raise EngineMismatchError(f'{path} does not fit its own seal: it was changed after the build. {remedy}')
    if backend is not None and manifest.backend != backend:
        raise EngineMismatchError(f'{folder} was built for the backend {manifest.backend}; {backend} was to load it. '
                                  f'Use backend {manifest.backend}, or a recipe for {backend}.')
    return manifest


def check_files(folder: str | Path, manifest: Manifest, *, progress: Callable[[str], None] = lambda line: None) -> None:
    """Compare every file with the manifest: sizes first, then hashes. Raises EngineMismatchError, which names the file."""
    folder = Path(folder)
    listed = {**manifest.files, **{name: entry for name, entry in manifest.sources.items() if (folder / name).exists()}}
    for name, needed in listed.items():
        path = folder / name
        if not path.is_file():
            raise EngineMismatchError(f'{path} is missing, though the manifest lists it. {manifest.remedy}')
        if path.stat().st_size != needed.nbytes:
            raise EngineMismatchError(f'{path} has {path.stat().st_size} bytes; the one that was built has {needed.nbytes}. '
                                      f'{manifest.remedy}')
    for name, needed in listed.items():
        found = hash_file(folder / name)
        if found != needed:
            raise EngineMismatchError(f'{folder / name} has sha256 {found.sha256}; the one that was built has {needed.sha256}. '
                                      f'{manifest.remedy}')
        progress(f'{folder / name}: as built')


def load_manifest(folder: str | Path, *, backend: str) -> Manifest:
    """The manifest of a folder whose files are all as they were built; what a backend calls before it loads anything."""
    manifest = read_manifest(folder, backend=backend)
    check_files(folder, manifest)
    return manifest


def _sealed(content: Mapping[str, Any]) -> str:
    """The manifest's text, with the hash of the text without it as its last entry."""
    seal = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return json.dumps({**content, SEAL: seal}, indent=1) + '\n'


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {'format': FORMAT, **dataclasses.asdict(manifest)}


def _from_json(content: Mapping[str, Any]) -> Manifest:
    files, sources = ({_plain(name): FileEntry(**entry) for name, entry in content[group].items()}
                      for group in ('files', 'sources'))
    vision, language = (_graph_entry(content[graph]) for graph in ('vision', 'language'))
    table = content['embeddings']
    for used in (vision.file, language.file, table['file']):
        if used not in files:
            raise ValueError(f'{used} is not among its files')
    return Manifest(
        vision_spec=VisionSpec(**content['vision_spec']), language_spec=LanguageSpec(**content['language_spec']),
        vision=vision, language=language, embeddings=TableEntry(**{**table, 'shape': tuple(table['shape'])}),
        ranges={name: (low, high) for name, (low, high) in content['ranges'].items()}, files=files, sources=sources,
        **{key: content[key] for key in ('backend', 'model', 'precision', 'recipe', 'builder', 'details', 'options')})


def _graph_entry(content: Mapping[str, Any]) -> GraphEntry:
    inputs, outputs = (tuple(TensorPort(port['name'], port['dtype'], tuple(port['shape'])) for port in content[side])
                       for side in ('inputs', 'outputs'))
    profiles = tuple(
        Profile(profile['name'], {name: (low, usual, high) for name, (low, usual, high) in profile['dims'].items()})
        for profile in content['profiles'])
    return GraphEntry(content['file'], inputs, outputs, profiles)


def _plain(name: str) -> str:
    """A file name that cannot lead out of the folder."""
    if Path(name).name != name or name in ('', '.', '..'):
        raise ValueError(f'{name!r} is not a plain file name')
    return name
