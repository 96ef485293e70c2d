"""penguin export: a checkpoint as two ONNX graphs. Knows nothing of engines or recipes (build.py)."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  penguin export ~/Penguin-VL-2B out/2b --precision fp16
  penguin export engines/nano out/nano --weights safetensors
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'export', help='write a checkpoint as ONNX graphs',
        description='Write the vision and the language engine of a Penguin-VL checkpoint as ONNX graphs (opset 18, plain '
                    'operations). Needs the onnx package, not torch. To get an engine that the node can load, with its '
                    'manifest, use penguin build.',
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
    parser.add_argument('--debug', action='store_true',
                        help='let the vision graph also give what lies between its layers, as penguin verify needs it')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import resource

    from penguin_ros.model.export import ExportOptions, export_checkpoint

    options = ExportOptions(precision=args.precision, merge=args.merge, weights=args.weights, attention=args.attention,
                            debug=args.debug)
    export_checkpoint(args.checkpoint, args.out, options, progress=print)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'{args.out}: done, with {peak_kb * 1024 / 1e9:.1f} GB of memory at most')
    return 0
