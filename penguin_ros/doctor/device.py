"""The computer: which Jetson, which JetPack, GPU and driver, power mode and clocks, memory and swap, network buffers.

Knows nothing of engines. Everything is read from /proc, /sys, /etc and NVIDIA's own commands; nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from penguin_ros.doctor.finding import Finding, fault, ok, unseen, warning
from penguin_ros.doctor.surroundings import Surroundings

# Linux for Tegra -> JetPack and the TensorRT it brings (reference/tensorrt.md 1.1).
_JETPACKS = (((39,), '7.2', '10.16'), ((38,), '7.0', '10.13'), ((36, 5), '6.2.2', '10.3'), ((36, 4, 4), '6.2.1', '10.3'),
             ((36, 4, 3), '6.2', '10.3'), ((36, 4), '6.1', '10.3'), ((36,), '6.0', '8.6'), ((35,), '5', '8.5'))
_OLDEST_L4T = (36, 4)
ORIN = '8.7'                        # compute capability
SOCKET_BYTES = 4 << 20              # receive buffer the DDS configuration asks for
SMALL_GB = 9.0                      # modules of up to 8 GB build engines only with swap
_SWAP_GB = 8.0
_ASK_GPU = ("import pycuda.driver as c; c.init(); d = c.Device(0); v = c.get_driver_version(); "
            "print(d.name(), '{}.{}'.format(*d.compute_capability()), f'{v // 1000}.{v % 1000 // 10}', sep='|')")


def look_at_device(machine: Surroundings, backend: str | None) -> Iterator[Finding]:
    """Module, JetPack, GPU, power, memory."""
    model = machine.read('/proc/device-tree/model')
    jetson = model is not None and ('Jetson' in model or 'Orin' in model)
    if jetson:
        yield ok('module', str(model))
        yield _jetpack(machine)
    else:
        yield unseen('module', f'this is no Jetson{f" but {model}" if model else ""}; power mode and clocks are not looked at')
    yield _gpu(machine, backend)
    if jetson:
        yield _power_mode(machine)
        yield _clocks(machine)
    yield from _memory(machine)


def look_at_network(machine: Surroundings) -> Iterator[Finding]:
    """What the kernel lets DDS keep of an image that arrives in pieces."""
    text = machine.read('/proc/sys/net/core/rmem_max')
    if text is None or not text.isdigit():
        yield unseen('DDS buffers', '/proc/sys/net/core/rmem_max cannot be read')
    elif int(text) < SOCKET_BYTES:
        yield warning('DDS buffers', f'a socket may receive {int(text) / 1e3:.0f} kB at most; images arrive in pieces and most '
                                     f'are lost below {SOCKET_BYTES / 1e6:.1f} MB',
                      f'echo net.core.rmem_max={SOCKET_BYTES} | sudo tee /etc/sysctl.d/60-penguin.conf && sudo sysctl --system')
    else:
        yield ok('DDS buffers', f'{int(text) / 1e6:.1f} MB a socket')


def _jetpack(machine: Surroundings) -> Finding:
    found = re.search(r'R(\d+).*REVISION: ([\d.]+)', machine.read('/etc/nv_tegra_release') or '')
    if not found:
        return unseen('JetPack', '/etc/nv_tegra_release does not tell; on a container mount it from the host')
    l4t = tuple(int(part) for part in (found[1], *found[2].split('.')))
    shown = '.'.join(map(str, l4t))
    jetpack, tensorrt = next(((jetpack, tensorrt) for least, jetpack, tensorrt in _JETPACKS if l4t >= least), ('?', '?'))
    if l4t < _OLDEST_L4T:
        return fault('JetPack', f'{jetpack} (L4T {shown}) brings TensorRT {tensorrt}; 10.3 or later is needed',
                     'install JetPack 6.2 or later')
    return ok('JetPack', f'{jetpack} (L4T {shown}, TensorRT {tensorrt})')


def _gpu(machine: Surroundings, backend: str | None) -> Finding:
    works, text = machine.ask_python(_ASK_GPU)
    if works:
        name, capability, driver = text.split('|')
        shown = f'{name}, compute capability {capability}, CUDA driver {driver}'
        if capability != ORIN:
            return unseen('GPU', f'{shown}: no Orin ({ORIN}), so the recipes for Orin and `penguin plan` say nothing of it')
        return ok('GPU', shown)
    driver_line = (machine.read('/proc/driver/nvidia/version') or '').splitlines()
    if backend != 'tensorrt':
        return unseen('GPU', f'not needed by this engine{" (" + driver_line[0] + ")" if driver_line else ""}')
    if 'No module' in text:
        return fault('GPU', f'pycuda cannot be imported, and the engine needs it: {text}',
                     'PATH=/usr/local/cuda/bin:$PATH pip install pycuda')
    return fault('GPU', f'pycuda finds no GPU: {text}',
                 'sudo usermod -aG video,render $USER   (then log in again; in a container: --runtime nvidia)')


def _power_mode(machine: Surroundings) -> Finding:
    found = re.search(r'NV Power Mode:\s*(\S+)', machine.run('nvpmodel', '-q') or '')
    if not found:
        return unseen('power mode', 'nvpmodel -q does not tell; run penguin doctor on the host, not in a container')
    modes = re.findall(r'POWER_MODEL ID=(\d+) NAME=(\S+)', machine.read('/etc/nvpmodel.conf') or '')
    best = [(number, name) for number, name in modes if name.startswith('MAXN')]
    fastest = next((entry for entry in best if 'SUPER' in entry[1]), best[0] if best else None)
    if fastest and found[1] != fastest[1]:
        return warning('power mode', f'{found[1]}; the fastest is {fastest[1]}', f'sudo nvpmodel -m {fastest[0]}')
    return ok('power mode', found[1])


def _clocks(machine: Surroundings) -> Finding:
    for folder in (path for name in ('*gpu*', '*ga10b*') for path in machine.find(f'/sys/class/devfreq/{name}')):
        low, now, high = (machine.read(f'{folder}/{name}_freq') for name in ('min', 'cur', 'max'))
        if low and now and high:
            shown = f'GPU at {int(now) / 1e6:.0f} MHz, from {int(low) / 1e6:.0f} to {int(high) / 1e6:.0f}'
            if int(low) < int(high):
                return warning('clocks', f'{shown}; they follow the load, so the first frames after a pause are late',
                               'sudo jetson_clocks')
            return ok('clocks', f'{shown}, held')
    return unseen('clocks', 'there is no GPU under /sys/class/devfreq; run penguin doctor on the host, not in a container')


def _memory(machine: Surroundings) -> Iterator[Finding]:
    sizes = {name: int(kb) * 1024 / 1e9 for name, kb in re.findall(r'(\w+):\s+(\d+) kB', machine.read('/proc/meminfo') or '')}
    if 'MemAvailable' not in sizes:
        yield unseen('memory', '/proc/meminfo does not tell')
        return
    yield ok('memory', f'{sizes["MemAvailable"]:.1f} of {sizes["MemTotal"]:.1f} GB available')
    swap = sizes.get('SwapTotal', 0.0)
    if sizes['MemTotal'] < SMALL_GB and swap < _SWAP_GB:
        yield warning('swap', f'{swap:.1f} GB; building an engine on a module this small wants {_SWAP_GB:.0f} GB on NVMe',
                      'sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && '
                      'sudo swapon /swapfile')
    else:
        yield ok('swap', f'{swap:.1f} GB')


def available_gb(machine: Surroundings) -> float | None:
    """Memory that programs could still have."""
    found = re.search(r'MemAvailable:\s+(\d+) kB', machine.read('/proc/meminfo') or '')
    return int(found[1]) * 1024 / 1e9 if found else None
