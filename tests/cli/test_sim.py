"""penguin sim refuses what it cannot do with one explained line, and runs the warehouse live beside penguin run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penguin_ros.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def test_a_recording_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed: pip install "penguin_ros[dds]"')
    target = tmp_path / 'drive.mcap'
    target.write_bytes(b'precious')
    assert main(['sim', 'record', str(target), '--seconds', '1']) == 1
    assert 'exists already' in capsys.readouterr().err
    assert target.read_bytes() == b'precious'


@pytest.mark.parametrize('arguments', [['--seconds', '0'], ['--rate', '-1']])
def test_a_recording_without_length_is_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        main(['sim', 'record', str(tmp_path / 'drive.mcap'), *arguments])
    assert refused.value.code == 2


def test_unknown_cameras_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed: pip install "penguin_ros[dds]"')
    assert main(['sim', 'record', str(tmp_path / 'drive.mcap'), '--cameras', 'front,top', '--seconds', '1']) == 1
    assert 'Choose among front, left, right, rear' in capsys.readouterr().err


def test_live_cameras_are_described_by_a_node_beside_them_until_ctrl_c() -> None:
    pytest.importorskip('mujoco', reason='MuJoCo is not installed: pip install "penguin_ros[train]"')
    pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')
    from penguin_ros.dds.bus import DdsBus
    from tests.bus.contract import Heard
    from tests.cli.test_run import penguin
    from tests.dds.domains import DOMAIN_ID, own_name

    space = own_name('robot')
    bus = DdsBus(own_name('world'), domain_id=DOMAIN_ID)
    scenes, truths, mounts = Heard(), Heard(), Heard()
    bus.listen(f'/{space}/penguin/rear/scene', 'penguin_ros/msg/SceneDescription', scenes, latched=True)
    bus.listen('/rear/ground_truth', 'std_msgs/msg/String', truths)
    bus.listen('/tf_static', 'tf2_msgs/msg/TFMessage', mounts, latched=True)
    live = subprocess.Popen([sys.executable, '-m', 'penguin_ros', 'sim', 'live', '--cameras', 'rear', '--rate', '2', '--raw',
                             '--wait', '30', '--domain', str(DOMAIN_ID)], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    node = penguin('run', '--camera', 'rear=/rear/image', '--namespace', space)
    try:
        count, scene = 0, None
        while live.poll() is None and not (scene and scene.header.frame_id):   # until its first image the camera is STALE
            count += 1
            scene = scenes.wait(count, timeout_s=60.0)[count - 1]
    finally:
        for process in (live, node):
            process.send_signal(signal.SIGINT)
        (said, log), _ = (process.communicate(timeout=30) for process in (live, node))
        bus.close()
    if 'No OpenGL context' in log:
        pytest.skip(f'no picture can be rendered here: {log}')
    assert scene.header.frame_id == 'rear_optical_frame'
    stamp_ns = scene.header.stamp.sec * 10**9 + scene.header.stamp.nanosec
    assert stamp_ns in {json.loads(message.data)['stamp_ns'] for message in truths.messages}
    assert mounts.messages[0].transforms[0].child_frame_id == 'rear_optical_frame'
    assert (live.returncode, node.returncode) == (0, 0), log
    assert 'penguin run --camera rear=/rear/image' in said
    sent = re.search(r'(\d+) images sent, \d+ late', said)
    assert sent
    assert int(sent[1]) >= 1
