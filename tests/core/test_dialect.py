"""How a model is asked is read from a file that its user may change; what cannot work is refused when it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penguin_ros.core.dialect import Dialect, read_dialect
from penguin_ros.core.errors import ConfigError
from penguin_ros.core.frame import Region


def test_without_a_file_boxes_are_four_numbers_in_brackets(tmp_path: Path) -> None:
    dialect = read_dialect(tmp_path)
    assert dialect == Dialect()
    box = Region(32.0, 24.0, 160.0, 120.0)
    assert dialect.box_text(box, width_px=320, height_px=240) == '[100, 100, 500, 500]'
    question = dialect.with_region('', box, width_px=320, height_px=240)
    assert question == 'Describe the object in the region [100, 100, 500, 500].'


def test_a_file_changes_some_of_it(tmp_path: Path) -> None:
    stated = {'coordinate': '<{value}>', 'coordinate_step': 10, 'coordinate_first': 5}
    (tmp_path / 'dialect.json').write_text(json.dumps(stated))
    dialect = read_dialect(tmp_path)
    assert dialect.box_text(Region(32.0, 24.0, 160.0, 240.0), width_px=320, height_px=240) == '[<105>, <105>, <505>, <995>]'


@pytest.mark.parametrize(('stated', 'told'), [
    ({'coordinate_step': 0}, 'steps of 1 or more'), ({'coordinate_first': -5}, 'start from 0 to 1000'),
    ({'coordinate': '<{number}>'}, 'has no place for {value} alone'),
    ({'coordinate': '{value'}, 'has no place for {value} alone'),
    ({'wording': 'Describe.'}, 'wording'), ({'coordinate_step': 'ten'}, "'<' not supported")])
def test_what_cannot_work_is_refused_with_what_may_be_stated(tmp_path: Path, stated: dict[str, object], told: str) -> None:
    (tmp_path / 'dialect.json').write_text(json.dumps(stated))
    with pytest.raises(ConfigError, match='cannot be used') as refused:
        read_dialect(tmp_path)
    assert told in str(refused.value)
    assert 'It is a JSON object with some of: caption_instruction' in str(refused.value)
