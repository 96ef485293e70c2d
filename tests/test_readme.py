"""What the README says is run."""

import re
import shlex
from pathlib import Path

import pytest

from penguin_ros.cli.main import build_parser
from penguin_ros.cli.settings import as_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def between(mark: str) -> str:
    return README.split(f'<!-- {mark} -->')[1].split(f'<!-- /{mark} -->')[0].strip()


def test_the_table_of_settings_is_the_declared_one() -> None:
    assert between('settings') == as_markdown().strip(), 'run `penguin settings --markdown` and put its output into README.md'


def test_the_folder_tree_exists() -> None:
    folders = [word for line in between('tree').splitlines() for word in line.split('  ')[0].split() if word.endswith('/')]
    assert len(folders) > 10
    for folder in folders:
        assert (ROOT / folder).is_dir(), folder


def penguin_commands() -> list[str]:
    texts = [README, *(path.read_text(encoding='utf-8') for path in (ROOT / 'docs').glob('*.md'))]
    found = []
    for text in texts:
        for block in re.findall(r'```sh\n(.*?)```', text, re.DOTALL):
            found += [line.split(' #')[0].strip() for line in block.splitlines() if line.startswith('penguin ')]
    return found


@pytest.mark.parametrize('command', penguin_commands())
def test_every_penguin_command_written_down_is_one_the_parser_takes(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[1:])


def test_every_make_target_written_down_exists() -> None:
    targets = set(re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE))
    named = set(re.findall(r'make ([a-z]+)', ' '.join(re.findall(r'`([^`]+)`|^(make .*)$', README, re.MULTILINE)[0])))
    assert {'demo', 'test'} <= targets
    assert named <= targets


def test_files_the_readme_points_at_exist() -> None:
    for target in re.findall(r'\]\(([^)#]+)\)', README):
        if '://' not in target:
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize('name', ['launch', 'config', 'engines', 'calibration', 'msg', 'srv', 'action', 'tests'])
def test_the_named_folders_are_there(name: str) -> None:
    assert (ROOT / name).is_dir()
