"""How one model wants to be asked and how it writes boxes. Knows nothing of parsing (grounding.py) or of token ids.

The published checkpoints do not document their box format (reference/penguin_vl.md 4), so it is read from a file beside
the engine, `dialect.json`; without the file the wording suggested there is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from penguin_ros.core.errors import ConfigError
from penguin_ros.core.frame import Region
from penguin_ros.core.grid import PERMILLE, permille_from_px


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The wording of one model; every text may be changed by the user who knows the model better."""

    caption_instruction: str = (
        'Describe the scene in one sentence. After each object, give its bounding box as [x1, y1, x2, y2] '
        'with integers from 0 to 1000.')
    region_question: str = 'Describe the object in the region {box}.'
    region_prefix: str = 'In the region {box}: '    # put before a user's own question about a region
    box_begin: str = '['
    box_end: str = ']'
    coordinate: str = '{value}'
    separator: str = ', '
    coordinate_step: int = 1        # coordinates are written in these steps of the 0..1000 scale ...
    coordinate_first: int = 0       # ... starting here

    def __post_init__(self) -> None:
        if self.coordinate_step < 1 or not 0 <= self.coordinate_first <= PERMILLE:
            raise ValueError(f'coordinates from {self.coordinate_first} in steps of {self.coordinate_step}; '
                             f'they start from 0 to {PERMILLE} and go in steps of 1 or more')
        try:
            self.coordinate.format(value=self.coordinate_first)
        except (LookupError, ValueError) as error:
            raise ValueError(f'coordinate {self.coordinate!r} has no place for {{value}} alone') from error

    def box_text(self, region_px: Region, *, width_px: int, height_px: int) -> str:
        """A region of an image of this size, as the model writes it."""
        corners = permille_from_px(region_px, width_px=width_px, height_px=height_px)
        last_step = (1000 - self.coordinate_first) // self.coordinate_step
        steps = (min(max(round((value - self.coordinate_first) / self.coordinate_step), 0), last_step) for value in corners)
        written = [self.coordinate.format(value=self.coordinate_first + step * self.coordinate_step) for step in steps]
        return self.box_begin + self.separator.join(written) + self.box_end

    def with_region(self, question: str, region_px: Region, *, width_px: int, height_px: int) -> str:
        """A question about a region, in the model's words; an empty question asks what the region holds."""
        box = self.box_text(region_px, width_px=width_px, height_px=height_px)
        if not question:
            return self.region_question.format(box=box)
        if '{box}' in question:
            return question.replace('{box}', box)
        return self.region_prefix.format(box=box) + question


def read_dialect(folder: Path) -> Dialect:
    """The dialect of the model in this folder. Raises ConfigError for a file that cannot be used."""
    path = folder / 'dialect.json'
    if not path.exists():
        return Dialect()
    try:
        stated = json.loads(path.read_text(encoding='utf-8'))
        return Dialect(**stated)
    except (ValueError, TypeError) as error:
        known = ', '.join(field.name for field in fields(Dialect))
        raise ConfigError(f'{path} cannot be used: {error}. It is a JSON object with some of: {known}.') from error
