"""How names, types and settings look on the DDS wire."""

from __future__ import annotations

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from penguin_ros.core.errors import ConfigError
from penguin_ros.dds import wire
from penguin_ros.dds.cyclone import Policy
from penguin_ros.dds.interfaces import interface_texts, message_texts, ros_types


def test_names_are_mangled_as_ros_2_does() -> None:
    assert wire.topic_name('/front/image') == 'rt/front/image'
    assert wire.request_topic('/penguin/ask') == 'rq/penguin/askRequest'
    assert wire.reply_topic('/penguin/ask') == 'rr/penguin/askReply'
    assert wire.type_name('penguin_ros/srv/Ask_Request') == 'penguin_ros::srv::dds_::Ask_Request_'


def test_loopback_is_tuned_and_a_network_is_left_to_cyclones_defaults() -> None:
    assert '<FragmentSize>65400B</FragmentSize>' in wire.cyclone_config('lo')
    assert '<AllowMulticast>false</AllowMulticast>' in wire.cyclone_config('lo')
    network = wire.cyclone_config('eth0')
    assert 'name="eth0"' in network
    assert 'FragmentSize' not in network
    assert 'max="4MB"' in network


def test_an_interface_that_could_not_be_one_is_refused() -> None:
    with pytest.raises(ConfigError, match='ip link'):
        wire.cyclone_config('lo"/><Evil')


@pytest.mark.parametrize(('option', 'environment', 'domain_id'), [
    (None, None, 0), (None, '', 0), (None, '42', 42), (7, '42', 7), (0, '42', 0)])
def test_the_domain_is_the_options_or_the_environments(monkeypatch: pytest.MonkeyPatch, option: int | None,
                                                       environment: str | None, domain_id: int) -> None:
    monkeypatch.delenv('ROS_DOMAIN_ID', raising=False)
    if environment is not None:
        monkeypatch.setenv('ROS_DOMAIN_ID', environment)
    assert wire.domain_id_from(option) == domain_id


@pytest.mark.parametrize(('option', 'environment'), [(233, ''), (-1, ''), (None, 'office'), (None, '999')])
def test_a_domain_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, option: int | None, environment: str) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', environment)
    with pytest.raises(ConfigError, match='0 to 232'):
        wire.domain_id_from(option)


def test_user_data_carries_the_type_hash_and_is_read_back() -> None:
    data = wire.user_data(ros_types(), 'std_msgs/msg/Header', 'clientid=1.2;')
    qos = wire.endpoint_qos(reliable=True, latched=False, depth=1, user_data=data)
    assert wire.user_data_value(qos, 'clientid') == '1.2'
    assert wire.user_data_value(qos, 'typehash') == ros_types().type_hash('std_msgs/msg/Header')
    assert wire.user_data_value(qos, 'serviceid') == ''


def test_a_latched_endpoint_keeps_its_last_message_for_latecomers() -> None:
    qos = wire.endpoint_qos(reliable=True, latched=True, depth=1, user_data=b'')
    assert qos[Policy.Durability] == Policy.Durability.TransientLocal
    assert qos[Policy.DurabilityService].history == Policy.History.KeepLast(1)


def test_every_interface_has_a_type_descriptor() -> None:
    descriptors = wire.Descriptors(ros_types())
    for name, text in interface_texts():
        for part in message_texts(name, text):
            descriptor = descriptors.message(part)
            assert descriptor.__idl_typename__.replace('.', '::') == wire.type_name(part)
            descriptor.__idl__.populate()
            descriptor.__idl__.fill_type_data()     # raises where Cyclone could not describe it to another process
