"""Write tests/data/tensorrt_names.json: which names and arguments TensorRT's Python bindings have, version by version.

    pip download --no-deps --dest wheels tensorrt-cu12-bindings==10.3.0         (and every other version wanted)
    python tests/backends/list_tensorrt_names.py wheels/*.whl

Needs a C compiler, but no GPU and no TensorRT: the bindings are imported over libraries of empty functions and only looked
at. Their documentation strings carry the signatures. Only names and argument names are kept (reference/tensorrt.md 6).
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / 'data' / 'tensorrt_names.json'
CLASSES = ('Builder', 'BuilderFlag', 'DataType', 'Dims', 'EngineInspector', 'IBuilderConfig', 'ICudaEngine',
           'IExecutionContext', 'IHostMemory', 'ILogger', 'INetworkDefinition', 'IOptimizationProfile', 'ITensor',
           'ITimingCache', 'LayerInformationFormat', 'Logger', 'MemoryPoolType', 'NetworkDefinitionCreationFlag', 'OnnxParser',
           'ParserError', 'ProfilingVerbosity', 'Runtime', 'TensorIOMode', 'TensorLocation')
FUNCTIONS = ('createInferBuilder_INTERNAL', 'createInferRuntime_INTERNAL', 'createInferRefitter_INTERNAL',
             'createNvOnnxParser_INTERNAL', 'createNvOnnxParserRefitter_INTERNAL', 'getPluginRegistry',
             'getBuilderPluginRegistry', 'getNvOnnxParserVersion', 'initLibNvInferPlugins')
LIBRARIES = ('nvinfer', 'nvonnxparser', 'nvinfer_plugin')


def names_of_bindings(folder: Path) -> dict[str, list[list[str]]]:
    """Name -> argument names of each overload; run in a process whose libraries are the empty ones."""
    sys.path.insert(0, str(folder))
    import tensorrt_bindings.tensorrt as bindings

    found: dict[str, list[list[str]]] = {}
    for class_name in CLASSES:
        found[class_name] = []
        members = getattr(bindings, class_name)
        for name in dir(members):
            if name == '__init__' or not name.startswith('_'):
                member = inspect.getattr_static(members, name)
                found[f'{class_name}.{name}'] = _arguments(name, getattr(members, name).__doc__ or '') if callable(
                    getattr(members, name)) and not isinstance(member, property) else []
    return found


def _arguments(name: str, text: str) -> list[list[str]]:
    """Argument names of each signature in a documentation string, ``self`` left out."""
    overloads = []
    for line in text.splitlines():
        match = re.match(rf'\s*(?:\d+\. )?{re.escape(name)}\((.*)\)(?: ->|\s*$)', line)
        if match and not match[1].startswith('*args'):
            names = [re.match(r'\s*(\w+)', part)[1] for part in _split(match[1]) if re.match(r'\s*\w+', part)]  # type: ignore[index]
            overloads.append([argument for argument in names if argument != 'self'])
    return overloads


def _split(arguments: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [''], 0
    for letter in arguments:
        depth += letter in '[(<{'
        depth -= letter in '])>}'
        if letter == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += letter
    return parts


def look_at(wheel: Path, scratch: Path) -> tuple[str, dict[str, list[list[str]]]]:
    """Version and names of one wheel."""
    version = wheel.name.split('-')[1]
    folder = scratch / version
    zipfile.ZipFile(wheel).extractall(folder)
    source = folder / 'empty.c'
    source.write_text('\n'.join(f'void *{name}(void) {{ return 0; }}' for name in FUNCTIONS))
    major = version.split('.')[0]
    for library in LIBRARIES:
        file = f'lib{library}.so.{major}'
        subprocess.run(['cc', '-shared', '-fPIC', '-o', folder / file, f'-Wl,-soname,{file}', source], check=True)
    output = subprocess.run([sys.executable, __file__, '--inside', folder], check=True, capture_output=True, text=True,
                            env={**os.environ, 'LD_LIBRARY_PATH': str(folder)}).stdout
    return version, json.loads(output)


def combine(by_version: dict[str, dict[str, list[list[str]]]]) -> dict[str, Any]:
    """What is the same in every version, and what is only in some."""
    versions = sorted(by_version, key=lambda version: [int(part) for part in version.split('.')])
    everywhere, partly = {}, {}
    for name in sorted(set().union(*by_version.values())):
        having = [version for version in versions if name in by_version[version]]
        if having == versions:
            everywhere[name] = [arguments for arguments in by_version[versions[0]][name]
                                if all(arguments in by_version[version][name] for version in versions)]
        else:
            partly[name] = having
    return {'about': 'Names of the TensorRT Python bindings and the argument names of each overload that is the same in all '
                     'versions; made by tests/backends/list_tensorrt_names.py.',
            'versions': versions, 'everywhere': everywhere, 'only_in': partly}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('wheels', nargs='*', type=Path, help='wheels of tensorrt-cu12-bindings')
    parser.add_argument('--inside', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(names_of_bindings(args.inside)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        table = combine(dict(look_at(wheel, Path(scratch)) for wheel in args.wheels))
    lines = [f' {json.dumps(key)}: ' + (json.dumps(value) if not isinstance(value, dict) else '{\n' + ',\n'.join(
        f'  {json.dumps(name)}: {json.dumps(item)}' for name, item in value.items()) + '\n }') for key, value in table.items()]
    TARGET.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
    print(f'{TARGET}: {len(table["everywhere"])} names are the same in {", ".join(table["versions"])}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
