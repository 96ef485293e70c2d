"""How ROS 2 looks on the DDS wire: topics, user data, quality of service, type descriptors, and how Cyclone DDS is configured.

Pure functions; knows nothing of connections (link.py) or of what is said over them.
"""

from __future__ import annotations

import os
import re
from typing import Any

from rosbags.interfaces import Nodetype

from penguin_ros.core.errors import ConfigError
from penguin_ros.dds.cyclone import Policy, Qos, idl, make_idl_struct
from penguin_ros.dds.interfaces import RosTypes

MAX_DOMAIN_ID = 232                 # beyond, the UDP ports of RTPS run out
MAX_PARTICIPANTS = 40               # processes on one machine and domain that find each other without multicast
PUBLISH_PATIENCE_NS = 100_000_000   # a reliable reader that hangs may hold a publisher up for this long

LOOPBACK_ONLY = f"""
    <General>
        <Interfaces><NetworkInterface name="lo"/></Interfaces>
        <AllowMulticast>false</AllowMulticast>
        <MaxMessageSize>65500B</MaxMessageSize>
        <FragmentSize>65400B</FragmentSize>
    </General>
    <Discovery>
        <ParticipantIndex>auto</ParticipantIndex>
        <MaxAutoParticipantIndex>{MAX_PARTICIPANTS}</MaxAutoParticipantIndex>
        <Peers><Peer address="localhost"/></Peers>
    </Discovery>"""

# On a network, a datagram of 65 kB would travel as some 45 IP fragments, and one lost would lose them all: defaults there.
ONE_INTERFACE = '<General><Interfaces><NetworkInterface name="{interface}"/></Interfaces></General>'

# IgnoreTypeInformation 1.15: without it endpoints of Fast DDS 3 (Kilted) do not match. reference/transport.md
CYCLONE_CONFIG = """<CycloneDDS><Domain Id="any">{network}
    <Compatibility><IgnoreTypeInformation>1.15</IgnoreTypeInformation></Compatibility>
    <Internal><SocketReceiveBufferSize min="default" max="4MB"/></Internal>
</Domain></CycloneDDS>"""


def cyclone_config(interface: str) -> str:
    """Cyclone DDS's configuration for one network interface; 'lo' keeps everything on this machine."""
    if not re.fullmatch(r'[\w.:@-]+', interface):
        raise ConfigError(f'{interface!r} cannot name a network interface. `ip link` lists them; lo stays on this machine.')
    return CYCLONE_CONFIG.format(network=LOOPBACK_ONLY if interface == 'lo' else ONE_INTERFACE.format(interface=interface))


def domain_id_from(option: int | None) -> int:
    """The domain to join: the option if given, else ROS_DOMAIN_ID, else 0 as in ROS 2."""
    text = os.environ.get('ROS_DOMAIN_ID', '') or '0'
    if option is None and not text.isdecimal():
        raise ConfigError(f'ROS_DOMAIN_ID is {text!r}; it can be 0 to {MAX_DOMAIN_ID}.')
    domain_id = int(text) if option is None else option
    if not 0 <= domain_id <= MAX_DOMAIN_ID:
        raise ConfigError(f'The domain id is {domain_id}; it can be 0 to {MAX_DOMAIN_ID}. Change --domain or ROS_DOMAIN_ID.')
    return domain_id


def topic_name(full: str) -> str:
    return f'rt{full}'


def request_topic(full: str) -> str:
    return f'rq{full}Request'


def reply_topic(full: str) -> str:
    return f'rr{full}Reply'


def type_name(ros_type: str) -> str:
    """penguin_ros/msg/Answer on the wire: penguin_ros::msg::dds_::Answer_."""
    package, kind, short = ros_type.split('/')
    return f'{package}::{kind}::dds_::{short}_'


def user_data(ros_types: RosTypes, ros_type: str, extra: str = '') -> bytes:
    """What real ROS 2 writes into an endpoint's user data: whose it is, and the type's hash."""
    return f'{extra}typehash={ros_types.type_hash(ros_type)};'.encode()


def user_data_value(qos: Any, key: str) -> str:
    """One value of an endpoint's user data, '' if it is not there."""
    if Policy.Userdata not in qos:
        return ''
    pairs = (pair.partition('=') for pair in bytes(qos[Policy.Userdata].data).decode('utf-8', 'replace').split(';'))
    return next((value for name, _, value in pairs if name == key), '')


def endpoint_qos(*, reliable: bool, latched: bool, depth: int, user_data: bytes) -> Any:
    """Quality of service of a reader or writer, with ROS 2's meanings."""
    policies = [
        Policy.Reliability.Reliable(PUBLISH_PATIENCE_NS) if reliable else Policy.Reliability.BestEffort,
        Policy.History.KeepLast(depth),
        Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.Userdata(user_data),
    ]
    if latched:     # Cyclone keeps what latecomers get by these limits, not by the history's
        policies.append(Policy.DurabilityService(0, Policy.History.KeepLast(depth), -1, -1, -1))
    return Qos(*policies)


class Descriptors:
    """DDS type descriptors, made from the same definitions as the bytes. Cyclone needs them to match endpoints."""

    def __init__(self, ros_types: RosTypes) -> None:
        self._types = ros_types
        self._made: dict[tuple[str, bool], Any] = {}

    def message(self, ros_type: str) -> Any:
        return self._struct(ros_type, {})

    def call(self, ros_type: str) -> Any:
        """A request or response as rmw_cyclonedds sends it: who asks and a running number, then the fields."""
        return self._struct(ros_type, {'header_guid': idl.uint64, 'header_sequence': idl.int64})

    def _struct(self, ros_type: str, before: dict[str, Any]) -> Any:
        key = ros_type, bool(before)
        if key not in self._made:
            fields = {name: self._field(*field_type) for name, field_type in self._types.fields(ros_type)}
            name = type_name(ros_type).replace('::', '.')
            self._made[key] = make_idl_struct(name.split('.')[-1], name, before | fields)
        return self._made[key]

    def _field(self, kind: Any, what: Any) -> Any:
        if kind == Nodetype.NAME:
            return self.message(what)
        if kind == Nodetype.BASE:
            base, limit = what
            if base == 'string':
                return idl.bounded_str[limit] if limit else str
            return bool if base == 'bool' else getattr(idl, {'char': 'uint8'}.get(base, base))
        element, size = self._field(*what[0]), what[1]
        if kind == Nodetype.ARRAY:
            return idl.array[element, size]
        return idl.sequence[element, size] if size else idl.sequence[element]
