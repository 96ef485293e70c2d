"""`penguin settings`: every setting of the node with its default, range and meaning."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLES = """examples:
  penguin settings                    a table to read
  penguin settings --yaml > my.yaml   a parameter file with every default, to change and give to --config or params_file
  penguin settings --markdown         the table of the README
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        'settings', help='list every setting with default, range and meaning', epilog=_EXAMPLES,
        description='Lists every setting of the node. Names are those of ROS parameters.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--yaml', action='store_true', help='as a ROS 2 parameter file')
    form.add_argument('--markdown', action='store_true', help='as a markdown table')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    print(as_yaml() if args.yaml else as_markdown() if args.markdown else as_text(), end='')
    return 0


def as_markdown() -> str:
    """The README's table."""
    lines = ['| setting | default | range | live | meaning |', '| --- | --- | --- | --- | --- |']
    for found in _settings():
        live = 'yes' if found.live else ''
        lines.append(f'| `{found.name}` | `{_written(found.default)}` | {_range(found)} | {live} | {found.about} |')
    return '\n'.join(lines) + '\n'


def as_text() -> str:
    """One setting a line, with its meaning below."""
    return ''.join(f'{found.name} = {_written(found.default)}   ({_range(found)}{", live" if found.live else ""})\n'
                   f'    {found.about}\n' for found in _settings())


def as_yaml() -> str:
    """A parameter file with every default."""
    lines = ['/**:', '  ros__parameters:']
    for found in _settings():
        lines += [f'    # {found.about} ({_range(found)})', f'    {found.name}: {_written(found.default)}']
    return '\n'.join(lines) + '\n'


def _settings() -> list[Any]:
    from penguin_ros.core.config import PenguinConfig
    from penguin_ros.core.settings import settings_of
    return settings_of(PenguinConfig)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return '[' + ', '.join(map(str, value)) + ']'
    return f"'{value}'" if isinstance(value, str) else str(value)


def _range(found: Any) -> str:
    if found.choices:
        return ', '.join(found.choices)
    if isinstance(found.default, bool):
        return 'true, false'
    if found.low is not None and found.high is not None:
        return f'{found.low:g} to {found.high:g}'
    return 'list' if isinstance(found.default, list) else 'text'
