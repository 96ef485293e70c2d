"""Starts the perception node and brings it to the active state.

    ros2 launch penguin_ros penguin.launch.py
    ros2 launch penguin_ros penguin.launch.py cameras:=front,rear namespace:=robot1
    ros2 launch penguin_ros penguin.launch.py cameras:=front=/zed/left/image_rect,rear=/rear/image_raw/compressed
    ros2 launch penguin_ros penguin.launch.py params_file:=my_robot.yaml engine:=/data/engines/penguin_2b

Arguments left empty do not override the parameter file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

ARGUMENTS = [
    DeclareLaunchArgument(
        'params_file', default_value='laptop.yaml',
        description='parameter file: a path, or the name of one of the shipped files (agx_orin.yaml, orin_nx.yaml, '
                    'orin_nano.yaml, laptop.yaml)'),
    DeclareLaunchArgument('namespace', default_value='', description="namespace of the node, for example the robot's name"),
    DeclareLaunchArgument(
        'cameras', default_value='',
        description='cameras as NAME or NAME=TOPIC, separated by commas; a topic that ends in /compressed carries '
                    'CompressedImage. Empty: those of the parameter file'),
    DeclareLaunchArgument(
        'engine', default_value='',
        description='folder of the built engine, or the name of a shipped one. Empty: that of the parameter file'),
    DeclareLaunchArgument('autostart', default_value='true', choices=['true', 'false'],
                          description='configure and activate the node as soon as it runs'),
    DeclareLaunchArgument('use_sim_time', default_value='false', choices=['true', 'false'],
                          description='take the time from /clock'),
    DeclareLaunchArgument('log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
                          description='least severity that is logged'),
    DeclareLaunchArgument('respawn', default_value='false', choices=['true', 'false'],
                          description='start the node again should its process end'),
]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start_node)])


def start_node(context: LaunchContext) -> list:
    """The node's process, and the two transitions that make it active."""
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    overrides = {'use_sim_time': given('use_sim_time') == 'true', **camera_parameters(given('cameras'))}
    if given('engine'):
        overrides['engine'] = given('engine')
    node = LifecycleNode(
        package='penguin_ros', executable='penguin_node', name='penguin', namespace=given('namespace'), output='both',
        parameters=[str(parameter_file(given('params_file'))), overrides],
        ros_arguments=['--log-level', given('log_level')], additional_env={'PYTHONUNBUFFERED': '1'},
        respawn=given('respawn') == 'true', respawn_delay=2.0)
    if given('autostart') == 'false':
        return [node]

    def change(transition_id: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition_id))

    # Once for every start of the process: whoever configures the node by hand later finds it inactive, as asked.
    activate = RegisterEventHandler(OnStateTransition(
        target_lifecycle_node=node, start_state='configuring', goal_state='inactive', handle_once=True,
        entities=[change(Transition.TRANSITION_ACTIVATE)]))
    bring_up = RegisterEventHandler(OnProcessStart(
        target_action=node, on_start=[activate, change(Transition.TRANSITION_CONFIGURE)]))
    return [bring_up, node]


def parameter_file(name: str) -> Path:
    """A path as it was given, or a shipped file by its name."""
    given = Path(name).expanduser()
    shipped = Path(get_package_share_directory('penguin_ros')) / 'config' / name
    for path in (given, shipped):
        if path.is_file():
            return path.resolve()
    names = ', '.join(sorted(path.name for path in shipped.parent.glob('*.yaml')))
    raise RuntimeError(f'params_file is {name!r}, which is no file here and none of the shipped ones: {names}.')


def camera_parameters(cameras: str) -> dict:
    """'front,rear=/rear/image_raw' -> the parameters cameras and camera.NAME.*."""
    parameters = {}
    names = []
    for entry in filter(None, (entry.strip() for entry in cameras.split(','))):
        name, _, topic = entry.partition('=')
        names.append(name)
        if topic:
            parameters[f'camera.{name}.image_topic'] = topic
            parameters[f'camera.{name}.compressed'] = topic.endswith('/compressed')
    return {'cameras': names, **parameters} if names else {}
