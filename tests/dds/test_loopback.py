"""With the default interface nothing leaves the machine: not from DDS, not from the engine's runtime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A machine of its own, with loopback and one other interface that everything else would go through.
OTHER_MACHINE = """
[ ! -e /proc/sys/net/ipv6 ] || echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6    # it would announce itself
ip link set lo up && ip link add out0 type veth peer name out1 && ip addr add 10.9.9.1/24 dev out0 &&
ip link set out1 up && ip link set out0 up && ip route add default via 10.9.9.2 &&
ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:01 dev out0 || exit 77
exec "$@"
"""

EXCHANGE = """
import threading
from pathlib import Path
from penguin_ros.dds.bus import DdsBus

def left():
    return sum(int(line.split()[10]) for line in Path('/proc/self/net/dev').read_text().splitlines() if 'out0' in line)

before = left()
node, world = DdsBus('node', domain_id=1), DdsBus('world', domain_id=1)
heard = threading.Event()
node.newest_image('~/image', lambda message: heard.set(), compressed=False)
outlet = world.advertise_images('/node/image', 'sensor_msgs/msg/Image')
while not heard.wait(0.1):
    outlet.publish(world.new('sensor_msgs/msg/Image', height=2))
node.close()
world.close()
print('left', left() - before)
"""


def test_dds_on_loopback_sends_nothing_through_another_interface() -> None:
    pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')
    if not (shutil.which('unshare') and shutil.which('ip')):
        pytest.skip('unshare and ip (util-linux, iproute2) are needed to make a network to watch')
    done = subprocess.run(['unshare', '-r', '-n', 'sh', '-c', OTHER_MACHINE, 'sh', sys.executable, '-c', EXCHANGE], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    if done.returncode == 77 or done.stderr.startswith('unshare:'):
        pytest.skip(f'this machine lets nobody make a network to watch: {done.stderr.strip()[-200:]}')
    assert done.stdout.strip() == 'left 0', done.stderr


def test_the_engines_runtime_is_told_to_send_no_usage_reports() -> None:
    pytest.importorskip('onnxruntime', reason='ONNX Runtime is not installed')
    script = ('import os\nfrom pathlib import Path\nfrom penguin_ros.backends.onnx import open_graph\n'
              'from penguin_ros.core.errors import EngineError\n'
              "try:\n    open_graph(Path('nothing.onnx'))\nexcept EngineError:\n    print(os.environ['ORT_DISABLE_TELEMETRY'])")
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == '1'
