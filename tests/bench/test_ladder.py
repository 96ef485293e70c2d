"""All policies over a few made-up images, engines in numpy: the figures add up and the report says them."""

import json
from functools import partial

import numpy as np
import pytest

from penguin_ros.bench import report
from penguin_ros.bench.footage import Footage, Shot
from penguin_ros.bench.ladder import ageing, figures, run_policy, same_text
from penguin_ros.bench.policies import POLICIES, Bench
from penguin_ros.core.config import read_config
from penguin_ros.core.dialect import Dialect
from penguin_ros.core.perception import Engines
from tests.bench.test_counting import MODEL
from tests.core.numpy_engine import NumpyLanguage, NumpyVision, byte_words

SECOND = 1_000_000_000
CAMERAS = ('front', 'rear')


def quiet(*_: object) -> None:
    pass


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, 4, 3), dtype=np.uint8).repeat(56, axis=0).repeat(56, axis=1)


@pytest.fixture(scope='module')
def footage() -> Footage:
    """The scene changes at every third image."""
    truth = {'objects': [], 'events': []}
    return Footage('made up', CAMERAS, 1.0, [
        Shot(camera, (1000 + second) * SECOND, truth, partial(picture, 10 * (second // 3) + index))
        for second in range(6) for index, camera in enumerate(CAMERAS)])


@pytest.fixture(scope='module')
def bench() -> Bench:
    engines = Engines(vision=NumpyVision(), language=NumpyLanguage(max_positions=4096), words=byte_words(),
                      dialect=Dialect(caption_instruction='Describe.'), model_name='tiny', engine_id='0', cache_rows=1200)
    config = read_config({'token_budget.window_tokens': 200, 'window.frames': 3, 'caption.max_new_tokens': 10})
    return Bench(engines=engines, model=MODEL, config=config, cameras=CAMERAS)


def test_every_policy_is_measured_and_the_report_says_so(bench: Bench, footage: Footage) -> None:
    runs = {name: run_policy(name, bench, footage, quiet) for name in POLICIES}
    found = {name: figures(run, footage) for name, run in runs.items()}
    assert found['a']['captions'] == 12
    assert found['b']['captions'] == 4
    assert found['a']['tokens_encoded_per_minute'] > found['e']['tokens_encoded_per_minute']
    assert found['d']['captions'] == found['e']['captions'], 'the same decisions'
    assert found['a']['work']['frames_encoded'] == 2 * (1 + 2 + 3 * 4), 'the window fills, then every frame again each time'
    result = {'settings': {'frames': 3, 'window_tokens': 100, 'every': 3, 'threads': 1}, 'model': 'tiny', 'engine': '0',
              'machine': {'processor': 'p', 'cores': 1, 'memory_gb': 1.0, 'software': 's', 'load': 0.0}, 'footage': [
                  {'name': 'made up', 'short': 'made', 'images': 12, 'seconds': 6.0, 'cameras': 2, 'rate_hz': 1.0, 'frames': 3,
                   'changes': 0, 'policies': list(found.values()), 'same_text': same_text(runs['d'], runs['e'])}]}
    result['verdicts'] = report.verdicts(result)
    text = report.markdown(json.loads(json.dumps(result)), notes='Nothing.')
    for name, (title, _) in POLICIES.items():
        assert f'| ({name}) {title} |' in text
    assert 'made: visual tokens a minute, (a) over (e)' in text


def test_texts_with_and_without_caches_are_equal_where_nothing_was_dropped(bench: Bench, footage: Footage) -> None:
    same = same_text(*(run_policy(name, bench, footage, quiet) for name in 'de'))
    assert same['whole_equal'] == same['whole'] > 0


def test_minutes_are_compared_whole_only(bench: Bench, footage: Footage) -> None:
    found = ageing('e', bench, footage.repeated(2), 24, 10, 'twice', quiet)
    assert found['minutes'] == 2
    assert len(found['frame_ms']) == len(found['rss_mb']) == 2
