"""penguin plan: what a recipe would cost on each Orin module, computed. Knows nothing of how (backends/roofline.py)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penguin_ros.backends.recipe import Recipe
    from penguin_ros.backends.roofline import Module, Part, Scene, Tick
    from penguin_ros.backends.stopwatch import Steps
    from penguin_ros.model.config import PenguinVLConfig

EXAMPLES = """examples:
  penguin plan                                                   Penguin-VL-2B in FP16 on every module
  penguin plan engines/penguin-vl-2b-orin-nx-16gb.yaml           a recipe, its own module marked
  penguin plan engines/penguin-vl-2b-orin-nx-16gb.yaml --module orin-nano-8gb --cameras 2
  penguin plan --frame-tokens 512 --efficiency 0.4 --plot out/plan.png
  penguin plan engines/penguin-vl-2b-orin-nx-16gb.yaml --measure engines/penguin-vl-2b-orin-nx-16gb

Exit status 1 when a module that was named, here or in the recipe, has not the memory the recipe needs.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'plan', help='latency and memory of a recipe on each Jetson Orin module, computed',
        description='Compute what a recipe would cost on each Jetson Orin module: milliseconds for a frame, a prompt, a token '
                    'and a whole caption, and memory. From arithmetic and bandwidth at a stated efficiency, beside what others '
                    'measured; nothing is run.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recipe', nargs='?', help='a YAML file, see engines/*.yaml (default: Penguin-VL-2B in FP16)')
    parser.add_argument('--module', action='append', metavar='NAME', dest='modules',
                        help='a module such as orin-nx-16gb; may be given again (default: all)')
    parser.add_argument('--cameras', type=int, default=1, help='cameras, each with a cache of its own (default: 1)')
    parser.add_argument('--frame-tokens', type=int, default=256, help='visual tokens of the new frame (default: %(default)s)')
    parser.add_argument('--kept-tokens', type=int, default=768,
                        help='visual tokens of earlier frames in the window (default: %(default)s)')
    parser.add_argument('--caption-tokens', type=int, default=48, help='tokens of the caption (default: %(default)s)')
    parser.add_argument('--accepted', type=float, default=0.9,
                        help='share of the last caption that is right again, token by token (default: %(default)s)')
    parser.add_argument('--efficiency', type=float, default=0.5,
                        help='share of peak arithmetic and bandwidth that is reached (default: %(default)s)')
    parser.add_argument('--measure', metavar='ENGINE',
                        help='also run a built engine here and show what its steps take beside what was computed')
    parser.add_argument('--json', action='store_true', help='print everything as one JSON object')
    parser.add_argument('--plot', metavar='FILE', help='also draw latency and memory into a picture')
    parser.set_defaults(run=run)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One module."""

    key: str
    module: Module
    named: bool                 # by the recipe or on the command line
    encode_ms: float
    prefill_ms: float
    token_ms: float
    drafted: Tick
    kept: Tick
    anew: Tick
    parts: tuple[Part, ...]
    build_gb: float

    @property
    def needs_gb(self) -> float:
        return sum(part.gb for part in self.parts)

    @property
    def fits(self) -> bool:
        return self.needs_gb <= self.module.memory_gb

    @property
    def reads_per_s(self) -> float:
        """Frames a second that can be taken in while nothing is written."""
        return 1e3 / (self.encode_ms + self.prefill_ms)

    @property
    def summary(self) -> str:
        """The row in one line, as the shipped recipes quote it."""
        return (f'encode {self.encode_ms:.0f} ms, prefill {self.prefill_ms:.0f} ms, token {self.token_ms:.1f} ms; caption '
                f'{self.drafted.total_ms:.0f} ms drafted, {self.kept.total_ms:.0f} ms not; {self.needs_gb:.1f} GB of '
                f'{self.module.memory_gb:.0f}')


def run(args: argparse.Namespace) -> int:
    from penguin_ros.backends.roofline import Scene

    _check_ranges(args)
    recipe, config, about = _recipe_and_model(args.recipe)
    scene = Scene(frame_tokens=args.frame_tokens, kept_tokens=args.kept_tokens, caption_tokens=args.caption_tokens,
                  accepted=args.accepted)
    rows = plan_rows(recipe, config, scene, args.modules or [], cameras=args.cameras, efficiency=args.efficiency)
    warnings = [_warning(row, recipe) for row in rows if row.named and not row.fits]
    notes = [f'building on {row.module.name} wants {row.build_gb:.1f} GB of {row.module.memory_gb:.0f}: add swap first '
             '(docs/engines.md)' for row in rows if row.named and row.build_gb > 0.75 * row.module.memory_gb]
    steps = _measured(args.measure, scene) if args.measure else None
    if args.json:
        found = _as_json(recipe, scene, rows, [*warnings, *notes], args.efficiency)
        print(json.dumps({**found, **({'measured': asdict(steps)} if steps else {})}, indent=1))
    else:
        print('\n'.join(_as_text(recipe, about, scene, rows, args)))
        for warning in (*warnings, *notes):
            print(f'\nwarning: {warning}')
        if steps:
            print('\n'.join(['', f'{args.measure} on this machine, same frame and rows as above, milliseconds:',
                             *_measured_lines(steps, next((row for row in rows if row.named), None))]))
    if args.plot:
        _plot(rows, recipe, Path(args.plot))
    return 1 if warnings else 0


def plan_rows(recipe: Recipe, config: PenguinVLConfig, scene: Scene, named: Sequence[str], *, cameras: int,
              efficiency: float) -> list[Row]:
    """One row per module: those named, else all with the recipe's own marked."""
    from penguin_ros.backends.roofline import MODULES, Precision, Roofline
    from penguin_ros.core.errors import ConfigError

    for name in (*named, *([recipe.module] if recipe.module else [])):
        if name not in MODULES:
            raise ConfigError(f'there is no module {name!r}; there are: {", ".join(MODULES)}.')
    rows = []
    for key in named or MODULES:
        roofline = Roofline(config, MODULES[key], Precision.of(recipe), merge=recipe.merge, efficiency=efficiency)
        rows.append(Row(
            key=key, module=MODULES[key], named=bool(named) or key == recipe.module,
            encode_ms=roofline.encode_ms(scene.frame_tokens * recipe.merge**2),
            prefill_ms=roofline.prefill_ms(scene.frame_tokens, scene.kept_tokens, max_append=recipe.max_append),
            token_ms=roofline.token_ms(scene.kept_tokens + scene.frame_tokens),
            drafted=roofline.caption(scene, kept=True, drafted=True, max_append=recipe.max_append),
            kept=roofline.caption(scene, kept=True, drafted=False, max_append=recipe.max_append),
            anew=roofline.caption(scene, kept=False, drafted=False, max_append=recipe.max_append),
            parts=tuple(roofline.memory(recipe, cameras=cameras)), build_gb=roofline.build_gb(recipe)))
    return rows


def _check_ranges(args: argparse.Namespace) -> None:
    from penguin_ros.core.errors import ConfigError

    for name, low, high in (('cameras', 1, 64), ('frame_tokens', 1, 65536), ('kept_tokens', 0, 1 << 20),
                            ('caption_tokens', 1, 4096), ('accepted', 0.0, 1.0), ('efficiency', 0.01, 1.0)):
        if not low <= getattr(args, name) <= high:
            raise ConfigError(f'--{name.replace("_", "-")} is {getattr(args, name)}; it can be {low:g} to {high:g}.')


def _recipe_and_model(file: str | None) -> tuple[Recipe, PenguinVLConfig, str]:
    """The recipe, the model's shape, and where that is known from."""
    from penguin_ros.backends.recipe import Recipe, read_recipe
    from penguin_ros.model.config import PENGUIN_VL_2B, PENGUIN_VL_8B, config_from_folder

    if file is None:
        recipe = Recipe(model='penguin-vl-2b', checkpoint='Penguin-VL-2B', backend='tensorrt', precision='fp16')
        return recipe, PENGUIN_VL_2B, ''
    recipe = read_recipe(file)
    if (recipe.checkpoint_folder / 'config.json').exists():
        return recipe, config_from_folder(recipe.checkpoint_folder), ''
    large = '8b' in recipe.checkpoint_folder.name.lower()
    return (recipe, PENGUIN_VL_8B if large else PENGUIN_VL_2B,
            f' ({recipe.checkpoint_folder} is not here; computed for the shape of Penguin-VL-{"8B" if large else "2B"})')


def _measured(engine: str, scene: Scene) -> Steps:
    """Run the steps of a tick on a built engine."""
    import logging

    from penguin_ros.assemble import load_engines
    from penguin_ros.backends.stopwatch import measure_steps
    from penguin_ros.core.config import PenguinConfig

    engines = load_engines(PenguinConfig(engine=engine), logging.getLogger('penguin'))
    merge = engines.vision.spec.merge
    rows = max(1, int(scene.frame_tokens**0.5))
    grid = rows * merge, scene.frame_tokens // rows * merge
    try:
        return measure_steps(engines.vision, engines.language, grid=grid, kept_rows=scene.kept_tokens,
                             cache_rows=engines.cache_rows)
    finally:
        engines.close()


def _measured_lines(steps: Steps, row: Row | None) -> list[str]:
    lines = []
    for name, about in (('encode_ms', 'encode a frame'), ('prefill_ms', 'prefill it'), ('token_ms', 'a token'),
                        ('verify_ms', 'verify a draft of 16'), ('switch_ms', 'change of profile'),
                        ('host_ms', 'of a token, the host')):
        computed = getattr(row, name, None)
        beside = f'   computed for {row.module.name}: {computed:.1f}' if row and computed else ''
        lines.append(f'  {about:22} {getattr(steps, name):8.2f}{beside}')
    return lines


def _as_text(recipe: Recipe, about: str, scene: Scene, rows: Sequence[Row], args: argparse.Namespace) -> list[str]:
    from penguin_ros.backends.roofline import Precision, tokens_per_pass

    precision = Precision.of(recipe)
    cameras = f'{args.cameras} camera{"s" if args.cameras > 1 else ""}'
    lines = [
        f'{recipe.model_name}{about}: weights of vision {precision.vision}, language {precision.language}, head '
        f'{precision.head}; {recipe.cache_rows} cache rows, {cameras}',
        f'one tick: a frame of {scene.frame_tokens} visual tokens ({scene.frame_tokens * recipe.merge**2} patches) behind '
        f'{scene.kept_tokens} kept, an instruction of {scene.prompt_rows}, a caption of {scene.caption_tokens} tokens',
        f'computed at {args.efficiency:.0%} of peak arithmetic and bandwidth, not measured; drafts {scene.accepted:.0%} right '
        f'({tokens_per_pass(scene.accepted):.1f} tokens a pass)',
        '',
        f'{"":22} {"one step, ms":^26}   {"a caption, ms":^28}   {"read":>7}   {"memory, GB":^20}',
        f'{"module":22} {"encode":>8} {"prefill":>8} {"token":>8}   {"drafted":>8} {"kept":>8} {"nothing":>10}   '
        f'{"per s":>7}   {"needs":>6} {"has":>5}  {"":5}']
    for row in rows:
        lines.append(
            f'{">" if row.named else " "} {row.module.name:20} '
            f'{row.encode_ms:8.0f} {row.prefill_ms:8.0f} {row.token_ms:8.1f}   '
            f'{row.drafted.total_ms:8.0f} {row.kept.total_ms:8.0f} {row.anew.total_ms:10.0f}   {row.reads_per_s:7.1f}   '
            f'{row.needs_gb:6.1f} {row.module.memory_gb:5.0f}  {"fits" if row.fits else "TOO MUCH"}')
    lines += ['', 'drafted: caches kept and the last caption as draft; kept: caches kept; nothing: every frame of the window '
                  'read again;', 'read: frames a second taken in while nothing is written']
    shown = [row for row in rows if row.named] or rows[:1]
    for row in shown:
        lines.append(f'memory on {row.module.name}: ' + ', '.join(f'{part.name} {part.gb:.2f}' for part in row.parts)
                     + f'; while building {row.build_gb:.1f}')
    return [*lines, '', *_published_lines(args.efficiency)]


def _published_lines(efficiency: float) -> list[str]:
    """What others measured beside what this computes for the same work."""
    from penguin_ros.backends.roofline import PUBLISHED_AS, PUBLISHED_PATCHES, PUBLISHED_PROMPT

    lines = [f'published, beside the same work computed here ({PUBLISHED_AS}):',
             f'{"":22} {"encode, ms":>16} {"prefill 292, ms":>18} {"token, ms":>16}']
    for row, found in _published_rows(efficiency):
        lines.append(f'  {found.name:20} ' + ' '.join(
            f'{measured:>{width}.{digits}f} / {computed:<6.{digits}f}' for (measured, computed), width, digits in zip(
                row, (8, 9, 8), (0, 0, 1))))
    return [*lines, f'measured / computed; encode {PUBLISHED_PATCHES} patches, prefill {PUBLISHED_PROMPT} tokens; '
                    'INT4 weights, FP16 head and vision']


def _published_rows(efficiency: float) -> list[tuple[list[tuple[float, float]], Module]]:
    from penguin_ros.backends.roofline import MODULES, PUBLISHED, PUBLISHED_PATCHES, PUBLISHED_PROMPT, Precision, Roofline
    from penguin_ros.model.config import PENGUIN_VL_2B

    rows = []
    for published in PUBLISHED:
        module = MODULES[published.module]
        roofline = Roofline(PENGUIN_VL_2B, module, Precision(language='int4'), efficiency=efficiency)
        rows.append(([(published.encode_ms, roofline.encode_ms(PUBLISHED_PATCHES)),
                      (published.prefill_ms, roofline.prefill_ms(PUBLISHED_PROMPT)),
                      (published.token_ms, roofline.token_ms(PUBLISHED_PROMPT))], module))
    return rows


def _warning(row: Row, recipe: Recipe) -> str:
    largest = sorted(row.parts, key=lambda part: part.gb, reverse=True)[:3]
    remedies = [remedy for possible, remedy in (
        (not recipe.language_weights, 'set language_weights: int4'), (not recipe.vision_weights, 'set vision_weights: int8'),
        (recipe.cache_rows > 1024, 'lower cache_rows'), (recipe.max_patches > 1024, 'lower max_patches'),
        (recipe.max_append > 128, 'lower max_append')) if possible]
    return (f'{recipe.model_name} does not fit {row.module.name}: it needs {row.needs_gb:.1f} GB of {row.module.memory_gb:.0f} '
            f'({", ".join(f"{part.name} {part.gb:.1f}" for part in largest)}, ...). '
            f'{"; or ".join(remedies).capitalize() or "Use a larger module"}.')


def _as_json(recipe: Recipe, scene: Scene, rows: Sequence[Row], warnings: Sequence[str], efficiency: float) -> dict[str, Any]:
    from penguin_ros.backends.roofline import PUBLISHED, PUBLISHED_AS, Precision

    return {
        'model': recipe.model_name, 'precision': asdict(Precision.of(recipe)), 'efficiency': efficiency, 'scene': asdict(scene),
        'modules': {row.key: {
            'name': row.module.name, 'named': row.named, 'encode_ms': row.encode_ms, 'prefill_ms': row.prefill_ms,
            'token_ms': row.token_ms, 'caption_drafted_ms': row.drafted.total_ms, 'caption_kept_ms': row.kept.total_ms,
            'caption_nothing_kept_ms': row.anew.total_ms, 'reads_per_s': row.reads_per_s,
            'memory_gb': {part.name: part.gb for part in row.parts}, 'needs_gb': row.needs_gb,
            'has_gb': row.module.memory_gb, 'build_gb': row.build_gb, 'fits': row.fits} for row in rows},
        'published': {'source': PUBLISHED_AS, 'measurements': [asdict(found) for found in PUBLISHED]},
        'warnings': list(warnings)}


def _plot(rows: Sequence[Row], recipe: Recipe, file: Path) -> None:
    """Caption latency in its parts, and memory beside what the module has."""
    from penguin_ros.core.errors import PenguinError
    try:
        import matplotlib
    except ImportError as error:
        raise PenguinError(f'drawing needs matplotlib: pip install "penguin_ros[plot]" ({error}).') from error
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (time_axis, memory_axis) = pyplot.subplots(1, 2, figsize=(12, 0.6 * len(rows) + 2), sharey=True)
    names = [row.module.name for row in rows]
    for axis, stacks, unit in (
            (time_axis, [{'encode': row.drafted.encode_ms, 'prefill': row.drafted.prefill_ms, 'decode': row.drafted.decode_ms}
                         for row in rows], 'ms for a caption, caches kept, drafted'),
            (memory_axis, [{part.name: part.gb for part in row.parts} for row in rows], 'GB; the line is what there is')):
        begin = [0.0] * len(rows)
        for name in stacks[0]:
            widths = [stack[name] for stack in stacks]
            axis.barh(names, widths, left=begin, label=name)
            begin = [a + b for a, b in zip(begin, widths)]
        axis.set_xlabel(unit)
        axis.legend(fontsize='small')
        axis.invert_yaxis()
    for place, row in enumerate(rows):
        memory_axis.plot([row.module.memory_gb] * 2, [place - 0.4, place + 0.4], color='black')
    figure.suptitle(f'{recipe.model_name}: computed, not measured')
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
