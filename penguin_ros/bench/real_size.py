"""The same ladder at the real 2B shapes with random weights: what one caption tick costs once the window is full.

Random weights say nothing worth reading, so no text is judged: every caption is a fixed number of tokens, written without
drafts. Knows nothing of truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from penguin_ros.backends.torch import TorchLanguageEngine, TorchVisionEngine
from penguin_ros.bench.footage import Footage
from penguin_ros.bench.policies import POLICIES, Bench, OurNode, WholeWindow
from penguin_ros.core.config import PenguinConfig
from penguin_ros.core.frame import Frame
from penguin_ros.core.perception import Engines
from penguin_ros.model.config import PENGUIN_VL_2B
from penguin_ros.model.definition import PenguinVL
from penguin_ros.model.precision import fast_type

CACHE_ROWS = 4096
MOVING_FROM_S = 8.0         # the recorded robot stands before, and has nothing new to say
Progress = Callable[[str, int, int], None]


def random_model(*, layers: int, threads: int) -> PenguinVL:
    """A 2B with small random weights, on CUDA where there is one, in its fast type; ``layers`` 0: all of both towers."""
    torch.set_num_threads(threads)
    config = PENGUIN_VL_2B
    if layers:
        config = replace(config, encoder=replace(config.encoder, layers=layers), decoder=replace(config.decoder, layers=layers))
    with torch.device('meta'):      # no numbers are drawn only to be drawn again
        model = PenguinVL(config)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model = model.to(fast_type(device)).to_empty(device=device)
    torch.manual_seed(0)
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            if 'norm' in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, 0.02)
    return model.eval()


def measure_real_size(words_of: Engines, model: PenguinVL, footage: Footage, config: PenguinConfig, *, new_tokens: int,
                      progress: Progress) -> dict[str, Any]:
    """Work and time of one caption tick of each policy behind a full window; words are those of another model."""
    on_gpu = model.decoder.norm.weight.is_cuda
    engines = replace(words_of, vision=TorchVisionEngine(model), language=TorchLanguageEngine(model),
                      model_name='random 2B', cache_rows=CACHE_ROWS)
    # A caption of exactly so many tokens: random weights hardly ever end one.
    config = replace(config, caption=replace(config.caption, max_new_tokens=new_tokens, deadline_s=120.0, drafted=False))
    bench = Bench(engines=engines, model=model.config, config=config, cameras=footage.cameras)
    stride = max(1, round(config.window.interval_s * footage.rate_hz))
    first = round(MOVING_FROM_S * footage.rate_hz)
    shots = footage.shots[first::stride][:config.window.frames + 1]
    found = {}
    for number, (name, (_, make)) in enumerate(POLICIES.items()):
        if name == 'b':
            continue                                # its tick is that of (a)
        progress(f'real size, policy {name}', number, len(POLICIES))
        policy = make(replace(bench, config=replace(config, caption=replace(config.caption, interval_s=3600.0))))
        frames = [Frame(shot.pixels(), shot.stamp_ns, shot.camera, shot.camera, 0.0) for shot in shots]
        for frame in frames[:-1]:
            if isinstance(policy, WholeWindow):
                policy.remember(frame)
            else:
                policy.look(frame)              # the first is captioned, the others are only read
        if isinstance(policy, OurNode):
            policy.perception.reconfigure(config)
        before = policy.work.copy()
        begun_s = time.perf_counter()
        said = policy.look(replace(frames[-1], received_s=time.monotonic()))
        if on_gpu:
            torch.cuda.synchronize()
        tick_s = time.perf_counter() - begun_s
        work = policy.work - before
        found[name] = {'tick_s': tick_s, 'spoke': said.is_new, 'tokens_encoded': work.tokens_encoded,
                       'tokens_read': work.tokens_read, 'encoder_gmac': work.encoder_macs / 1e9,
                       'decoder_gmac': work.decoder_macs / 1e9, 'passes': work.passes, **policy.memory()}
    progress('real size', len(POLICIES), len(POLICIES))
    return {'device': torch.cuda.get_device_name() if on_gpu else f'CPU, threads: {torch.get_num_threads()}',
            'dtype': str(model.decoder.norm.weight.dtype).removeprefix('torch.'),
            'encoder_layers': model.config.encoder.layers, 'decoder_layers': model.config.decoder.layers,
            'parameters': sum(parameter.numel() for parameter in model.parameters()), 'frames': len(shots),
            'new_tokens': new_tokens, 'policies': found}
