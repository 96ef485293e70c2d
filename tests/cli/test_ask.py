"""penguin ask prints an answer a person, or with --json a program, can read; and says what is wrong if there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from penguin_ros.cli.main import main
from tests.bus.contract import wait_until
from tests.dds.domains import DOMAIN_ID
from tests.dds.world import World


@pytest.fixture
def world() -> Iterator[World]:
    running = World()
    running.show('blue')
    wait_until(lambda: bool(running.told()), 'the image being described')
    yield running
    running.close()


def ask(world: World, *arguments: str) -> int:
    return main(['ask', *arguments, '--node', world.node, '--domain', str(DOMAIN_ID)])


def test_an_answer_is_printed_with_its_probabilities(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(world, 'which colour', '--choice', 'red', '--choice', 'blue', '--region', '0,0,10,10') == 0
    shown = capsys.readouterr()
    assert shown.out == 'blue\n   0.0%  red\n  100.0%  blue\n'
    assert 'confidence 75%' in shown.err


def test_a_program_reads_all_fields_as_json(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(world, 'which colour', '--json') == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer['success'], answer['answer'], answer['header']['frame_id']) == (True, 'blue', 'front')
    assert answer['latency'].keys() == {'queue_ms', 'encode_ms', 'prefill_ms', 'decode_ms', 'total_ms'}


def test_a_streamed_answer_ends_with_the_whole(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(world, 'one two slowly', '--stream') == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'blue'


@pytest.mark.parametrize(('arguments', 'words'), [
    (['which', '--camera', 'rear'], "no camera 'rear'"), (['which', '--ago', '1000'], 'Ask within that range'),
    (['which', '--stamp', '1760000000.5'], '1760000000.500 s')])
def test_a_refusal_is_an_error_with_its_remedy(world: World, capsys: pytest.CaptureFixture[str], arguments: list[str],
                                               words: str) -> None:
    assert ask(world, *arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ''
    assert shown.err.startswith('penguin ask: error: ')
    assert words in shown.err


@pytest.mark.parametrize('arguments', [
    ['x', '--region', '1,2,3'], ['x', '--region', '-1,0,5,5'], ['x', '--region', '0,0,0,5'], ['x', '--stamp', 'now'],
    ['x', '--stamp', '-3'], ['x', '--stamp', '1', '--ago', '1'], ['x', '--timeout', '0'], ['x', '--timeout', 'nan']])
def test_options_that_make_no_sense_are_refused_before_anything_is_asked(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(['ask', *arguments])


def test_a_stamp_keeps_its_nanoseconds() -> None:
    from penguin_ros.cli.main import build_parser

    assert build_parser().parse_args(['ask', 'x', '--stamp', '1760000000.123456789']).stamp == 1_760_000_000_123_456_789
