"""penguin export: a checkpoint as two ONNX graphs. Knows nothing of engines or recipes (build.py)."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  penguin export ~/Penguin-VL-2B out/2b --precision fp16
  penguin export engines/nano out/nano --weights safetensors
  penguin export engines/nano out/nano --vision-weights int8 --language-weights int4 --calibration calibration/nano
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'export', help='write a checkpoint as ONNX graphs',
        description='Write the vision and the language engine of a Penguin-VL checkpoint as ONNX graphs (opset 18, 19 with '
                    'INT8 and 21 with INT4 weights; plain operations). Needs the onnx package, not torch. To get an engine '
                    'that the node can load, with its manifest, use penguin build.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='folder with config.json and *.safetensors')
    parser.add_argument('out', help='folder for the graphs; made if needed')
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'fp16'),
                        help='type of matrix products and cache; what lies between stays float32 (default: %(default)s)')
    parser.add_argument('--merge', type=int, default=2, metavar='M',
                        help='patches per side of one visual token: 1 for pictures, 2 for video frames (default: %(default)s)')
    parser.add_argument('--weights', default='external', choices=('external', 'safetensors'),
                        help="copy the weights in the precision asked for, or let the graphs point into the checkpoint's own "
                             'files (default: %(default)s)')
    parser.add_argument('--attention', default='split', choices=('split', 'concat'),
                        help='read past rows where they lie, or join them with the new ones first (default: %(default)s)')
    parser.add_argument('--vision-weights', default='', choices=('int8',), help='round the weights of the vision engine')
    parser.add_argument('--language-weights', default='', choices=('int8', 'int4'),
                        help='round the weights of the language engine')
    parser.add_argument('--calibration', type=Path, metavar='DIR',
                        help='folder that penguin calibrate wrote: the scales of rounded weights; with --precision fp16 also '
                             'whether activations stay where float16 is safe')
    parser.add_argument('--float32', action='append', default=[], metavar='NAME',
                        help='multiply this weight in float32 whatever the rest does, as the audit of penguin calibrate names '
                             'it; may be repeated')
    parser.add_argument('--debug', action='store_true',
                        help='let the vision graph also give what lies between its layers, as penguin verify needs it')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import resource

    from penguin_ros.model.export import ExportOptions, export_checkpoint

    options = ExportOptions(precision=args.precision, merge=args.merge, weights=args.weights, attention=args.attention,
                            debug=args.debug, vision_weights=args.vision_weights, language_weights=args.language_weights,
                            calibration=args.calibration, float32=tuple(args.float32))
    export_checkpoint(args.checkpoint, args.out, options, progress=print)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'{args.out}: done, with {peak_kb * 1024 / 1e9:.1f} GB of memory at most')
    return 0
