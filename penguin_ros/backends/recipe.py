"""A recipe (engines/*.yaml): which checkpoint is built into engines, how, and where to. Knows nothing of building."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

import yaml

from penguin_ros.core.errors import ConfigError
from penguin_ros.core.settings import read_settings, setting, settings_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model on one kind of device. Paths in the file are relative to the file."""

    file: Path = Path('recipe.yaml')    # where it was read
    model: str = setting('', 'name published with every message; empty: the name of the file')
    checkpoint: str = setting('', 'folder with config.json and *.safetensors')
    output: str = setting('', 'folder for the built engines; empty: a folder named like the file, beside it')
    backend: str = setting('onnx', 'what runs the engines', choices=('onnx', 'tensorrt'))
    precision: str = setting('fp32', 'type of matrix products and cache; the rest is float32', choices=('fp32', 'fp16'))
    vision_weights: str = setting('', 'weights of the vision engine: int8, or empty for those of precision',
                                  choices=('', 'int8'))
    language_weights: str = setting('', 'weights of the language engine: int8, int4, or empty for those of precision',
                                    choices=('', 'int8', 'int4'))
    calibration: str = setting('', 'folder that penguin calibrate wrote: scales of int8 and int4 weights, and the ranges that '
                               'say whether fp16 is safe; empty: none')
    float32: tuple[str, ...] = setting((), 'weights multiplied in float32 whatever the rest does, by name, as the audit of '
                                       'penguin calibrate names them')
    module: str = setting('', 'Jetson module the recipe was made for; penguin plan checks that it fits')
    weights: str = setting('external', 'external: copied in the precision asked for; safetensors: the graphs point into the '
                           "checkpoint's files (small models)", choices=('external', 'safetensors'))
    attention: str = setting('split', 'split: no cache row is copied; concat: past and new rows are joined first, a plainer '
                             'graph that a compiler may fuse', choices=('split', 'concat'))
    merge: int = setting(2, 'patches per side of one visual token: 1 for pictures, 2 for video frames', low=1, high=8)
    max_patches: int = setting(2048, 'most patches of one frame', low=4, high=65536)
    max_append: int = setting(512, 'most rows of one language call; longer prompts go in chunks', low=1, high=8192)
    cache_rows: int = setting(4096, 'most rows of a KV cache', low=16, high=262144)
    optimization_level: int = setting(3, 'TensorRT: how long it looks for fast kernels, 0 to 5', low=0, high=5)
    workspace_mb: int = setting(1024, 'TensorRT: most scratch memory a kernel may want, megabytes', low=16, high=65536)
    max_positions: int = setting(0, 'positions the model was trained for; 0: as its config.json says', low=0, high=1048576)

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError('no checkpoint is named. Add a line like "checkpoint: ../Penguin-VL-2B".')
        if (self.vision_weights or self.language_weights) and not self.calibration:
            raise ConfigError('vision_weights or language_weights is set, but no calibration is named. Add a line like '
                              '"calibration: ../calibration/penguin-vl-2b"; penguin calibrate, given this recipe, makes it.')
        if self.max_patches % self.merge**2:
            raise ConfigError(f'max_patches is {self.max_patches}, not a multiple of merge * merge = '
                              f'{self.merge**2}. Use {self.max_patches // self.merge**2 * self.merge**2 or self.merge**2}.')
        if self.max_append >= self.cache_rows:
            raise ConfigError(f'max_append is {self.max_append}; a cache of {self.cache_rows} rows, of which one is '
                              f'reserved, takes {self.cache_rows - 1} at most. Lower max_append or raise cache_rows.')

    @property
    def checkpoint_folder(self) -> Path:
        return self.file.parent / Path(self.checkpoint).expanduser()

    @property
    def calibration_folder(self) -> Path | None:
        return self.file.parent / Path(self.calibration).expanduser() if self.calibration else None

    @property
    def output_folder(self) -> Path:
        return self.file.parent / Path(self.output or self.file.stem).expanduser()

    @property
    def model_name(self) -> str:
        return self.model or self.file.stem


def read_recipe(file: str | Path) -> Recipe:
    """Read and check one YAML file. Raises ConfigError with what to change."""
    file = Path(file)
    try:
        content = yaml.safe_load(file.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ConfigError(f'{file} does not exist. The recipes that come with penguin_ros are in engines/*.yaml.') from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f'{file} cannot be read: {error}. A recipe is a YAML file of "name: value" lines.') from error
    if not isinstance(content, dict):
        raise ConfigError(f'{file} holds no "name: value" lines. Start from one of engines/*.yaml.')
    known = [found.name for found in settings_of(Recipe)]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ConfigError(f'{file} sets {name!r}, which no recipe has. '
                              + (f'Did you mean {near[0]}?' if near else f'It can set {", ".join(known)}.'))
    try:
        return dataclasses.replace(read_settings(Recipe, content), file=file)
    except ConfigError as error:
        raise ConfigError(f'{file}: {error}') from None
