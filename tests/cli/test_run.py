"""penguin run brings the node up by itself, and Ctrl-C ends it in order; penguin play shows it a recording."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from penguin_ros.cli.main import main
from penguin_ros.core.errors import ConfigError
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.options import named_topics, read_parameter_file
from tests.bus.contract import Heard, wait_until
from tests.dds.domains import DOMAIN_ID, own_name
from tests.dds.recordings import write_recording

ROOT = Path(__file__).resolve().parents[2]

# penguin, its model replaced by one that names colours.
PLAIN_PENGUIN = """
import sys
import penguin_ros.assemble
from tests.dds.plain_perception import plain_perception
penguin_ros.assemble.assemble = plain_perception
from penguin_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def penguin(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, '-c', PLAIN_PENGUIN, *arguments, '--domain', str(DOMAIN_ID)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_recording_is_played_described_and_asked_about_until_ctrl_c(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = own_name('robot')
    recording = write_recording(tmp_path / 'drive.mcap', ['green'] * 5)
    node = penguin('run', '--camera', 'front=/front/image_raw', '--namespace', space, '--set', 'ask.waiting=3')
    bus = DdsBus(own_name('world'), domain_id=DOMAIN_ID)
    scenes = Heard()
    bus.listen(f'/{space}/penguin/front/scene', 'penguin_ros/msg/SceneDescription', scenes, latched=True)
    assert main(['play', str(recording), '--domain', str(DOMAIN_ID), '--wait', '30', '--rate', '2']) == 0
    assert '5 images sent' in capsys.readouterr().out
    wait_until(lambda: any(scene.caption == 'a green scene' for scene in scenes.messages), 'a scene')
    assert main(['ask', 'which colour', '--node', f'/{space}/penguin', '--domain', str(DOMAIN_ID), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['answer'] == 'green'
    bus.close()
    node.send_signal(signal.SIGINT)
    _, log = node.communicate(timeout=30)
    assert node.returncode == 0, log
    for step in ('unconfigured -> configuring', 'activating -> active', 'deactivating -> inactive',
                 'cleaningup -> unconfigured'):
        assert step in log


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--engine', 'missing'], 'penguin build'), (['--set', 'window.frame=3'], 'did you mean window.frames'),
    (['--interface', 'none99'], 'ip link')])
def test_a_node_that_cannot_start_says_why(arguments: list[str], words: str) -> None:
    node = penguin('run', '--namespace', own_name('robot'), *arguments)
    _, log = node.communicate(timeout=60)
    assert node.returncode == 1
    assert 'penguin run: error: ' in log
    assert words in log


def test_cameras_are_named_by_the_user_or_by_their_topic() -> None:
    assert named_topics(['front=/a/image', '/rear/image_raw/compressed']) == {
        'front': '/a/image', 'rear': '/rear/image_raw/compressed'}
    for bad in (['=x'], ['front='], ['front=/a', 'front=/b']):
        with pytest.raises(ConfigError):
            named_topics(bad)


def test_a_parameter_file_is_read_as_ros_2_reads_it(tmp_path: Path) -> None:
    file = tmp_path / 'config.yaml'
    file.write_text('/**:\n  ros__parameters:\n    engine: nano\n    window: {frames: 3}\n    caption.drafted: false\n')
    assert read_parameter_file(file) == {'engine': 'nano', 'window.frames': 3, 'caption.drafted': False}
    file.write_text('engine: nano\nwindow:\n  frames: 3\n')
    assert read_parameter_file(file) == {'engine': 'nano', 'window.frames': 3}
    file.write_text('/**:\n  ros__parameters: {threads: 2, engine: small}\ncamera:\n  ros__parameters: {threads: 9}\n'
                    'robot:\n  penguin:\n    ros__parameters: {engine: nano}\n')
    assert read_parameter_file(file) == {'threads': 2, 'engine': 'nano'}
    for text, words in (('camera:\n  ros__parameters: {a: 1}\n', 'no parameters for penguin, only for /camera'),
                        ('- a\n', 'not names with values'), ('a: [1', 'is not YAML')):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_parameter_file(file)


@pytest.mark.parametrize('file', sorted((ROOT / 'config').glob('*.yaml')), ids=lambda file: file.stem)
def test_the_shipped_parameter_files_are_read(file: Path) -> None:
    assert read_parameter_file(file)
