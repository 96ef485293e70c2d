"""One compiled MuJoCo model that can show any world: a pool of solids placed anew for every picture. Knows no truth.

Compiling a model per world would cost more than the picture. Positions, sizes, colours and materials are written
straight into the model and its data; solids not in use sit in a group that is never drawn.
"""

from __future__ import annotations

import atexit
import math
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from penguin_ros.core.errors import PenguinError
from penguin_ros.sim.parts import CONE_BAND, CONE_TOP, Part, parts_of_room, parts_of_shelf
from penguin_ros.sim.silhouette import camera_axes
from penguin_ros.sim.world import FLOORS, Camera, Room, World

_POOL = {'box': 480, 'cylinder': 320, 'capsule': 140, 'sphere': 100, 'cone': 24, 'cone_band': 24}
_MATERIALS = ('plain', 'planks', 'carton', 'wall', 'gloss')
_HIDDEN_GROUP = 4
_TEXTURE_PX = 256


class SimulatorError(PenguinError):
    """The simulator cannot run here, or a world does not fit it."""


def _import_mujoco():  # type: ignore[no-untyped-def]
    if os.name == 'posix' and not os.environ.get('DISPLAY'):
        os.environ.setdefault('MUJOCO_GL', 'egl')
    # Mesa's software renderer gains nothing here from threads, and other work on the machine loses cores to them
    os.environ.setdefault('LP_NUM_THREADS', '0')
    try:
        import mujoco
    except ImportError as error:
        raise SimulatorError(f'MuJoCo is missing ({error}). Install it: pip install "penguin_ros[train]"') from error
    return mujoco


CONE_BAND_SWELL = 1.03          # the band stands out from the cone by this much


def _frustum_xml(name: str, heights: Sequence[float], radii: Sequence[float]) -> str:
    angles = [2 * math.pi * step / 32 for step in range(32)]
    vertices = ' '.join(f'{radius * math.cos(angle):.5f} {radius * math.sin(angle):.5f} {z}'
                        for z, radius in zip(heights, radii) for angle in angles)
    return f'<mesh name="{name}" vertex="{vertices}"/>'


def _model_xml(camera: Camera, samples: int) -> str:
    textures = ''.join(f'<texture name="{name}" type="2d" builtin="flat" rgb1="1 1 1" width="{_TEXTURE_PX}" '
                       f'height="{_TEXTURE_PX}"/><material name="{name}" texture="{name}" texrepeat="0.7 0.7" '
                       'texuniform="true" specular="0.15" shininess="0.3"/>' for name in FLOORS)
    textures += ''.join(f'<texture name="{name}" type="cube" builtin="flat" rgb1="1 1 1" width="128" height="768"/>'
                        f'<material name="{name}" texture="{name}" specular="0.1" shininess="0.2"/>'
                        for name in ('planks', 'carton', 'wall'))
    textures += '<material name="plain" specular="0.2" shininess="0.3"/><material name="gloss" specular="0.6" shininess="0.7"/>'
    textures += ('<texture type="skybox" builtin="gradient" rgb1="0.35 0.37 0.40" rgb2="0.62 0.63 0.65" width="64" '
                 'height="384"/>')
    sizes = {'box': '0.1 0.1 0.1', 'cylinder': '0.1 0.1', 'capsule': '0.1 0.1', 'sphere': '0.1'}
    sizes = {shape: f'type="{shape}" size="{size}"' for shape, size in sizes.items()}
    sizes |= {'cone': 'type="mesh" mesh="cone"', 'cone_band': 'type="mesh" mesh="cone_band"'}
    band_radii = [CONE_BAND_SWELL * ((1 + CONE_TOP) / 2 - z * (1 - CONE_TOP) / 2) for z in CONE_BAND]
    meshes = _frustum_xml('cone', (-1.0, 1.0), (1.0, CONE_TOP)) + _frustum_xml('cone_band', CONE_BAND, band_radii)
    solids = ''.join(f'<geom {sizes[shape]} group="{_HIDDEN_GROUP}" contype="0" conaffinity="0"/>'
                     for shape, count in _POOL.items() for _ in range(count))
    return f"""<mujoco>
      <visual><global offwidth="{camera.width_px}" offheight="{camera.height_px}"/>
        <quality offsamples="{samples}" shadowsize="2048" numslices="24" numstacks="12"/>
        <map znear="0.004" zfar="8" shadowclip="1"/></visual>
      <statistic extent="10" center="0 0 0"/>
      <asset>{textures}{meshes}</asset>
      <worldbody>
        <light name="lamp" directional="true" castshadow="false" pos="0 0 6" dir="0 0 -1"/>
        <light name="shadow_lamp" directional="true" castshadow="true" pos="0 0 6" dir="0 0 -1"/>
        <geom name="floor" type="plane" size="40 40 0.1" material="plain"/>
        {solids}
        <camera name="robot" pos="0 0 1" fovy="60"/>
      </worldbody></mujoco>"""


def _floor_pattern(name: str) -> np.ndarray:
    """A floor's brightness, uint8 [px, px], the same on every machine."""
    px = _TEXTURE_PX
    rng = np.random.default_rng(20)
    coarse = rng.normal(0, 1, (16, 16)).repeat(px // 16, 0).repeat(px // 16, 1)
    for axis in (0, 1):
        coarse = sum(np.roll(coarse, shift, axis) for shift in range(-12, 13, 2)) / 13  # type: ignore[assignment]
    speckle = rng.normal(0, 1, (px, px))
    row, column = np.mgrid[:px, :px]
    if name == 'checker':
        pattern = np.where((row // (px // 2) + column // (px // 2)) % 2 == 0, 0.95, 0.62) + 0.01 * speckle
    elif name == 'concrete':
        pattern = 0.85 + 0.12 * coarse + 0.025 * speckle
    elif name == 'tiles':
        pattern = np.where((row % (px // 4) < 3) | (column % (px // 4) < 3), 0.6, 0.9) + 0.05 * coarse + 0.01 * speckle
    elif name == 'boards':
        pattern = 0.75 + 0.16 * rng.uniform(-1, 1, 8)[row // (px // 8)] + 0.015 * speckle - 0.3 * (row % (px // 8) < 2)
    else:
        pattern = 0.9 + 0.01 * speckle
    return (np.clip(pattern, 0, 1) * 255).astype(np.uint8)


def _cube_pattern(name: str, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(21)
    row, column = np.mgrid[:height, :width]
    if name == 'planks':
        board = row // (width // 5)
        pattern = 0.9 + 0.07 * rng.uniform(-1, 1, height)[board] - 0.35 * (row % (width // 5) < 3)
        pattern = pattern + 0.02 * rng.normal(0, 1, height)[:, None]
    elif name == 'carton':
        tape = np.abs(column - width // 2) < width // 14
        pattern = 0.9 + 0.12 * tape + 0.02 * rng.normal(0, 1, (height, width))
    else:
        pattern = 0.93 + 0.012 * rng.normal(0, 1, (height, width)) - 0.10 * (column % (width // 2) < 2)
    return (np.clip(pattern, 0, 1) * 255).astype(np.uint8)


class Stage:
    """Shows worlds through one camera size. Holds an OpenGL context: use it on the thread that made it, close it."""

    def __init__(self, camera: Camera, *, smooth_edges: bool = False) -> None:
        self._mujoco = mujoco = _import_mujoco()
        self.model = mujoco.MjModel.from_xml_string(_model_xml(camera, samples=4 if smooth_edges else 0))
        self._paint_textures()
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        try:
            self.renderer = mujoco.Renderer(self.model, camera.height_px, camera.width_px, max_geom=2000)
        except Exception as error:  # each OpenGL platform raises its own kind
            raise SimulatorError(f'No OpenGL context for rendering ({error}). On a machine without a display install '
                                 'libegl1 and libgl1-mesa-dri and set MUJOCO_GL=egl.') from error
        atexit.register(self.close)                # OpenGL must go before the interpreter does
        self._pool: dict[str, np.ndarray] = {}
        first = 1                                  # geom 0 is the floor
        for shape, count in _POOL.items():
            self._pool[shape] = np.arange(first, first + count)
            first += count
        # MuJoCo moves a mesh to its centre of mass and turns it to its main axes; undone when a cone is placed
        self._mesh_offset = {}
        for shape in ('cone', 'cone_band'):
            mesh, turn = self.model.mesh(shape).id, np.zeros(9)
            mujoco.mju_quat2Mat(turn, self.model.mesh_quat[mesh])
            self._mesh_offset[shape] = (self.model.mesh_pos[mesh].copy(), turn.reshape(3, 3))
        self._material = {name: self.model.material(name).id for name in (*_MATERIALS, *FLOORS)}
        self._static_key: tuple[int, int] | None = None
        self._static_parts: list[Part] = []
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[0] = 1

    def _paint_textures(self) -> None:
        model = self.model
        for index in range(model.ntex):
            name = model.texture(index).name
            if not name:
                continue
            height, width, channels = model.tex_height[index], model.tex_width[index], model.tex_nchannel[index]
            pattern = _floor_pattern(name) if name in FLOORS else _cube_pattern(name, height, width)
            start = model.tex_adr[index]
            model.tex_data[start:start + height * width * channels] = np.repeat(pattern.reshape(-1), channels)

    def place(self, world: World, parts: list[tuple[int, Part]], time_s: float) -> np.ndarray:
        """Put room, shelves and the owned parts in place; returns the owner of every geom, int [ngeom], 0 for scenery."""
        key = (id(world.room), id(world.shelves))
        if key != self._static_key:
            self._static_key = key
            self._static_parts = parts_of_room(world.room) + [p for shelf in world.shelves for p in parts_of_shelf(shelf)]
            self._static_world = world             # keeps the ids above from being reused
        model, data = self.model, self.data
        by_shape: dict[str, list[tuple[int, Part]]] = defaultdict(list)
        for owner, part in [(0, part) for part in self._static_parts] + parts:
            if part.role == 'shadow' and world.light.casts_shadow:
                continue                           # the real one is there
            by_shape[part.shape].append((owner, part))
        owners = np.zeros(model.ngeom, np.int32)
        for shape, pool in self._pool.items():
            placed = by_shape[shape]
            if len(placed) > len(pool):
                raise SimulatorError(f'The world needs {len(placed)} solids of shape {shape}, the stage has {len(pool)}. '
                                     'Use fewer things or shelves.')
            model.geom_group[pool] = _HIDDEN_GROUP
            if not placed:
                continue
            geoms = pool[:len(placed)]
            sizes = np.array([(*part.size, 0.0, 0.0)[:3] for _, part in placed])
            model.geom_group[geoms] = 0
            if shape not in self._mesh_offset:
                model.geom_size[geoms] = sizes
            model.geom_rbound[geoms] = np.linalg.norm(sizes, axis=1) + sizes[:, 0]
            model.geom_rgba[geoms] = [(*part.rgb, part.alpha) for _, part in placed]
            model.geom_matid[geoms] = [self._material[part.material] for _, part in placed]
            if shape in self._mesh_offset:
                # a mesh has no size of its own: its axes carry the scale
                shift, turn = self._mesh_offset[shape]
                scaled = [part.axes * (part.size[0], part.size[0], part.size[1]) for _, part in placed]
                data.geom_xpos[geoms] = [part.centre + axes @ shift for (_, part), axes in zip(placed, scaled)]
                data.geom_xmat[geoms] = [(axes @ turn).reshape(9) for axes in scaled]
            else:
                data.geom_xpos[geoms] = [part.centre for _, part in placed]
                data.geom_xmat[geoms] = [part.axes.reshape(9) for _, part in placed]
            owners[geoms] = [owner for owner, _ in placed]
        self._set_floor(world.room)
        self._set_light(world, time_s)
        self._set_camera(world, time_s)
        self.renderer.update_scene(data, camera='robot', scene_option=self._options)
        return owners

    def _set_floor(self, room: Room) -> None:
        floor = self.model.geom('floor').id
        self.model.geom_matid[floor] = self._material[room.floor]
        self.model.geom_rgba[floor] = (*room.floor_rgb, 1.0)

    def _set_light(self, world: World, time_s: float) -> None:
        model, data, light = self.model, self.data, world.light
        level = light.level_at(time_s)
        model.vis.headlight.ambient[:] = light.fill * level
        model.vis.headlight.diffuse[:] = 0.22 * level
        model.vis.headlight.specular[:] = 0.05
        robot_x, robot_y, _ = world.robot.at(time_s)
        for index in range(model.nlight):
            shining = bool(model.light_castshadow[index]) == light.casts_shadow
            model.light_active[index] = shining
            model.light_diffuse[index] = np.array(light.lamp) * level
            model.light_specular[index] = 0.25 * level
            model.light_ambient[index] = 0.0
            data.light_xdir[index] = light.direction
            data.light_xpos[index] = np.array([robot_x, robot_y, 0.0]) - 6.0 * np.array(light.direction)

    def _set_camera(self, world: World, time_s: float) -> None:
        position, axes = camera_axes(world.camera, world.robot.at(time_s))
        self.model.cam_fovy[0] = np.degrees(world.camera.fovy_rad)
        self.data.cam_xpos[0] = position
        self.data.cam_xmat[0] = axes.reshape(9)

    def picture(self) -> np.ndarray:
        """RGB uint8 [height, width, 3] of what was placed."""
        self.renderer.disable_segmentation_rendering()
        return self.renderer.render()

    def geom_ids(self) -> np.ndarray:
        """The geom seen at each pixel, int [height, width], -1 for none."""
        self.renderer.enable_segmentation_rendering()
        segments = self.renderer.render()
        self.renderer.disable_segmentation_rendering()
        is_geom = segments[..., 1] == int(self._mujoco.mjtObj.mjOBJ_GEOM)
        return np.where(is_geom, segments[..., 0], -1)

    def close(self) -> None:
        atexit.unregister(self.close)
        self.renderer.close()
