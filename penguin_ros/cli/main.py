"""The penguin command: finds the subcommands beside it, runs one, turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import penguin_ros
from penguin_ros import cli
from penguin_ros.core.errors import PenguinError


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand; each module of penguin_ros.cli but this one is a subcommand."""
    parser = argparse.ArgumentParser(
        prog='penguin', description='Grounded captions and region answers from robot cameras with Penguin-VL.')
    parser.add_argument('--version', action='version', version=f'penguin_ros {penguin_ros.__version__}')
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for module in sorted(pkgutil.iter_modules(cli.__path__), key=lambda found: found.name):
        if module.name != 'main':
            importlib.import_module(f'penguin_ros.cli.{module.name}').add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `penguin ARGV`; exit status 0, 1 for an error that was explained, 130 for Ctrl-C."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except PenguinError as error:
        print(f'penguin {args.command}: error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `penguin ... | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == '__main__':
    sys.exit(main())
