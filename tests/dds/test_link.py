"""What other processes see of a node: over real sockets, from a second process, as ROS 2's graph shows it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from penguin_ros.core.errors import TransportError
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.interfaces import ros_types
from penguin_ros.dds.link import DISCOVERY_TOPIC, DISCOVERY_TYPE, Endpoint
from tests.bus.contract import Heard, RecordedLifecycle, wait_until
from tests.dds.domains import DOMAIN_ID, own_name

ROOT = Path(__file__).resolve().parents[2]

# Another process: echoes images as they come, and answers a service.
ECHO = """
import sys, threading, time
from concurrent.futures import Future
from penguin_ros.dds.bus import DdsBus

name, domain_id = sys.argv[1], int(sys.argv[2])
bus = DdsBus(name, domain_id=domain_id)
out = bus.advertise_images('~/out', 'sensor_msgs/msg/Image')
bus.newest_image('~/in', out.publish, compressed=False)

def start(request):
    answer = Future()
    response = bus.new('penguin_ros/srv/Ask_Response', answer=request.question[::-1])
    threading.Timer(0.05, lambda: answer.set_result(response)).start()
    return answer

bus.serve('~/ask', 'penguin_ros/srv/Ask', start)
print('ready', flush=True)
sys.stdin.read()
bus.close()
"""


@pytest.fixture
def echo() -> Iterator[str]:
    """The name of a node in another process."""
    name = own_name('echo')
    process = subprocess.Popen([sys.executable, '-c', ECHO, name, str(DOMAIN_ID)], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b'ready\n'
    yield name
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture
def bus() -> Iterator[DdsBus]:
    opened = DdsBus(own_name('world'), domain_id=DOMAIN_ID)
    yield opened
    opened.close()


def test_large_images_and_calls_cross_to_another_process(bus: DdsBus, echo: str) -> None:
    heard = Heard()
    bus.newest_image(f'/{echo}/out', heard, compressed=False)
    outlet = bus.advertise_images(f'/{echo}/in', 'sensor_msgs/msg/Image')
    client = bus.client(f'/{echo}/ask', 'penguin_ros/srv/Ask')
    assert client.wait(10.0)
    assert client.call(bus.new('penguin_ros/srv/Ask_Request', question='abc'), 5.0).answer == 'cba'
    wait_until(lambda: outlet.subscribers() == 1, 'the other process subscribing')
    pixels = bytes(range(256)) * 10800      # 1280x720 rgb8
    for number in range(5):
        sent = bus.new('sensor_msgs/msg/Image', height=720, width=1280, encoding='rgb8', step=3840, data=pixels)
        sent.header.stamp.sec = number
        outlet.publish(sent)
        heard.wait(number + 1)
    last = heard.messages[-1]
    assert (last.header.stamp.sec, last.height, last.data.tobytes() == pixels) == (4, 720, True)


def test_many_calls_at_once_are_all_answered(bus: DdsBus, echo: str) -> None:
    client = bus.client(f'/{echo}/ask', 'penguin_ros/srv/Ask')
    assert client.wait(10.0)
    words = [f'word {number}' for number in range(8)]
    waiting = [client.start(bus.new('penguin_ros/srv/Ask_Request', question=word)) for word in words]
    assert [response.result(10.0).answer for response in waiting] == [word[::-1] for word in words]


def test_the_graph_names_the_node_and_whose_each_endpoint_is(bus: DdsBus) -> None:
    name = own_name('penguin')
    node = DdsBus(name, namespace='/robot', domain_id=DOMAIN_ID)
    told = Heard()
    endpoint = Endpoint(topic=DISCOVERY_TOPIC, ros_type=DISCOVERY_TYPE, latched=True, depth=100)
    bus._link.reader(endpoint, lambda data, info: told(ros_types().decode(data, DISCOVERY_TYPE)))
    node.advertise('~/scene', 'penguin_ros/msg/SceneDescription')
    node.manage(RecordedLifecycle())

    def known() -> bool:
        """With 5 lifecycle services, and, beside their replies, /rosout, transition_event and the scene."""
        return any((entities.node_namespace, entities.node_name) == ('/robot', name)
                   and (len(entities.reader_gid_seq), len(entities.writer_gid_seq)) == (5, 8)
                   for participant in told.messages for entities in participant.node_entities_info_seq)

    wait_until(known, 'the node being in the graph with all its endpoints')
    node.close()


def test_an_interface_this_machine_does_not_have_is_refused() -> None:
    with pytest.raises(TransportError, match='ip link'):
        DdsBus(own_name('lost'), domain_id=DOMAIN_ID % 100 + 101, interface='none99')


def test_one_process_has_one_interface_in_a_domain(bus: DdsBus) -> None:
    with pytest.raises(TransportError, match='already in DDS domain'):
        DdsBus(own_name('other'), domain_id=DOMAIN_ID, interface='eth0')


def test_a_reader_that_hangs_does_not_hold_up_the_publisher(bus: DdsBus) -> None:
    release = threading.Event()
    hanging = DdsBus(own_name('hanging'), domain_id=DOMAIN_ID)
    topic = f'/{own_name("image")}'
    hanging.newest_image(topic, lambda message: release.wait(10.0) and None, compressed=False)
    outlet = bus.advertise_images(topic, 'sensor_msgs/msg/Image')
    wait_until(lambda: outlet.subscribers() == 1, 'the hanging reader subscribing')
    message = bus.new('sensor_msgs/msg/Image', height=480, width=640, encoding='rgb8', step=1920, data=bytes(921600))
    worst_s = 0.0
    for _ in range(20):
        begun_s = time.monotonic()
        outlet.publish(message)
        worst_s = max(worst_s, time.monotonic() - begun_s)
    release.set()
    hanging.close()
    assert worst_s < 2.0


def test_a_bus_can_be_closed_twice_and_opened_again() -> None:
    for _ in range(3):
        opened = DdsBus(own_name('again'), domain_id=DOMAIN_ID)
        opened.close()
        opened.close()


def test_simulated_time_is_what_the_clock_says(bus: DdsBus) -> None:
    simulated = DdsBus(own_name('simulated'), domain_id=DOMAIN_ID, settings={'use_sim_time': True})
    assert simulated.now_ns() == 0
    clock = bus.advertise_images('/clock', 'rosgraph_msgs/msg/Clock', reliable=False)   # as ros2 bag play does
    time_message = bus.new('builtin_interfaces/msg/Time', sec=12, nanosec=5)

    def said() -> bool:
        clock.publish(bus.new('rosgraph_msgs/msg/Clock', clock=time_message))
        return simulated.now_ns() == 12_000_000_005

    wait_until(said, 'the clock being heard')
    simulated.close()


def test_the_log_is_shown_on_rosout(bus: DdsBus) -> None:
    heard = Heard()
    bus.listen('/rosout', 'rcl_interfaces/msg/Log', heard, latched=True)
    name = own_name('penguin')
    node = DdsBus(name, domain_id=DOMAIN_ID)
    node.log().error('the lens is dirty')
    wait_until(lambda: any((record.name, record.msg, record.level) == (name, 'the lens is dirty', 40)
                           for record in heard.messages), 'the record on /rosout')
    node.close()


def test_bytes_that_fit_no_message_are_not_sent_and_the_next_good_one_is(bus: DdsBus) -> None:
    heard = Heard()
    topic = f'/{own_name("question")}'
    bus.listen(topic, 'penguin_ros/msg/Question', heard)
    outlet = bus.advertise(topic, 'penguin_ros/msg/Question')
    wait_until(lambda: outlet.subscribers() == 1, 'the listener')
    with pytest.raises(TransportError, match='may not be a message of that type'):
        outlet.publish_bytes(memoryview(b'\x00\x01\x00\x00\xff\xff\xff\x7f'))
    outlet.publish(bus.new('penguin_ros/msg/Question', id='good'))
    assert [message.id for message in heard.wait(1)] == ['good']


def test_without_cyclonedds_or_rosbags_the_remedy_is_named() -> None:
    for package, module, words in (('cyclonedds', 'penguin_ros.dds.bus', 'ros2 launch penguin_ros'),
                                   ('rosbags', 'penguin_ros.dds.recording', "pip install 'penguin_ros[dds]'")):
        script = (f'import sys, json; sys.modules[{package!r}] = None\n'
                  'from penguin_ros.core.errors import TransportError\n'
                  f'try:\n    import {module}\nexcept TransportError as error:\n    print(json.dumps(str(error)))')
        done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True)
        assert words in json.loads(done.stdout)
