"""What docs/engines.md says is so: its commands parse, its figures are the plan's, its files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from penguin_ros.backends.recipe import read_recipe
from penguin_ros.backends.roofline import Scene
from penguin_ros.cli.main import build_parser
from penguin_ros.cli.plan import plan_rows
from penguin_ros.model.config import PENGUIN_VL_2B

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'docs' / 'engines.md').read_text(encoding='utf-8')
COMMANDS = sorted(set(re.findall(r'`(?:[^`\n]*&& )?(penguin \w+ [^`\n]+)`', TEXT)))


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_in_the_text_and_the_tables_is_one_the_parser_takes(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[1:])


def test_every_file_of_this_repository_that_is_named_exists() -> None:
    named = set(re.findall(r'(?:engines|config|tests)/[\w./-]+\.yaml|tests/data/golden', TEXT))
    assert len(named) > 4
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_table_of_recipes_is_what_the_plan_computes() -> None:
    rows = re.findall(r'\| ([\w ]+GB) \| `([\w.-]+)` \| .* \| ([\d.]+) GB \| (\d+) / (\d+) ms \|', TEXT)
    assert len(rows) == 5
    for name, file, memory, drafted, plain in rows:
        recipe = read_recipe(ROOT / 'engines' / file)
        row, = plan_rows(recipe, PENGUIN_VL_2B, Scene(), [recipe.module], cameras=1, efficiency=0.5)
        assert row.module.name == name
        assert (f'{row.needs_gb:.1f}', f'{row.drafted.total_ms:.0f}', f'{row.kept.total_ms:.0f}') == (memory, drafted, plain)


def test_the_open_questions_each_have_a_command() -> None:
    table = TEXT.split('## What only a device can settle')[1]
    rows = [line.split('|') for line in table.splitlines() if line.startswith('| ')][2:]
    assert len(rows) > 10
    for row in rows:
        assert '`' in row[2], row[1]
