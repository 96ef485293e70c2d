import numpy as np
import pytest

from penguin_ros.bench.counting import CountingLanguage, CountingVision, Work, block_macs, decoder_macs, encoder_macs
from penguin_ros.model.config import BlockConfig, DecoderConfig, EncoderConfig, PenguinVLConfig
from tests.core.numpy_engine import HEAD_DIM, HEADS, KV_HEADS, LAYERS, WIDTH, NumpyLanguage, NumpyVision

SHAPE = {'width': WIDTH, 'layers': LAYERS, 'heads': HEADS, 'kv_heads': KV_HEADS, 'head_dim': HEAD_DIM, 'mlp_width': 32,
         'norm_eps': 1e-6, 'rope_theta': 1e4}
MODEL = PenguinVLConfig(encoder=EncoderConfig(**SHAPE), decoder=DecoderConfig(vocabulary=300, **SHAPE), image_token_id=256,
                        tied_embeddings=True)


def test_a_block_is_its_matrices_and_the_attention_over_all_keys() -> None:
    config = BlockConfig(width=4, layers=1, heads=2, kv_heads=1, head_dim=6, mlp_width=10, norm_eps=1e-6, rope_theta=1e4)
    query_and_out, key_and_value, mlp = 2 * 4 * 12, 2 * 4 * 6, 3 * 4 * 10
    scores_and_mix = 2 * 12 * 7
    assert block_macs(config, rows=3, keys=7) == 3 * (query_and_out + key_and_value + mlp + scores_and_mix)


def test_the_real_decoder_costs_its_parameters_per_row() -> None:
    from penguin_ros.model.config import PENGUIN_VL_2B
    assert decoder_macs(PENGUIN_VL_2B, 1, 0, 0) == pytest.approx(1_720_574_976 - 151936 * 2048, rel=0.001)
    assert decoder_macs(PENGUIN_VL_2B, 0, 0, 1) == 151936 * 2048


def test_calls_add_up() -> None:
    work = Work()
    vision, language = CountingVision(NumpyVision(), MODEL, work), CountingLanguage(NumpyLanguage(), MODEL, work)
    visual = vision.encode(np.zeros((24, 588)), (4, 6))
    assert (work.frames_encoded, work.tokens_encoded, work.encoder_macs) == (1, 6, encoder_macs(MODEL, 24, 6))
    before = work.copy()
    cache = language.new_cache(100)
    language.append(cache, [np.arange(5), visual], start=1, positions=np.arange(11), visible=np.zeros(1, bool), logits_for=[10])
    done = work - before
    assert (done.passes, done.rows_read, done.tokens_read, done.encoder_macs) == (1, 11, 6, 0)
    assert done.decoder_macs == decoder_macs(MODEL, 11, 1, 1)
