"""The chat template against golden/prompt, and the streaming pieces against the template."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from penguin_ros.core.errors import QuestionError
from penguin_ros.core.prompt import IMAGE, SPECIAL_TOKENS, chat_text, frame_lead, question_tail, stream_head

CASES = json.loads((Path(__file__).parents[1] / 'data/golden/prompt/cases.json').read_text())

# The pre-tokenizer of Qwen2 and Qwen3, as their tokenizer.json states it.
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r'|\s+(?!\S)|\s+')


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
    """A byte-level BPE with Qwen's splitting rule; merges are learned from prompts, so that any seam could be merged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior='isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    texts = [case['text'] for case in CASES] * 4 + [
        f'user\nTime {t}.0s:,Time {t}.5s:,Time {t}\n\nWhat is there, left or right?\nNow? (1,2)\n' for t in range(40)]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=2, show_progress=False))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


@pytest.mark.parametrize('case', CASES, ids=lambda case: case['name'])
def test_the_template_writes_the_golden_text(case: dict) -> None:
    assert chat_text(case['messages'], generation_prompt=case['add_generation_prompt'],
                     thinking=case['add_think_prompt']) == case['text']


QUESTIONS = ['What happens?', 'Weiß? ', ' leading blank', '\n\nOn its own line\n', ', a comma first', '12 crates?', "'s",
             '好吗']


def whole_and_pieces(times_s: list[float], question: str, system: str | None, thinking: bool) -> tuple[str, list[str]]:
    """The same conversation from the template, and from the streaming pieces with <image> in between."""
    content: list[dict] = [{'type': 'video', 'num_frames': len(times_s), 'timestamps': times_s}] if times_s else []
    messages = [{'role': 'system', 'content': system}] if system else []
    messages.append({'role': 'user', 'content': [*content, {'type': 'text', 'text': question}]})
    pieces = [stream_head(system)]
    for index, time_s in enumerate(times_s):
        pieces += [frame_lead(time_s, first=index == 0), IMAGE]
    pieces.append(question_tail(question, after_frame=bool(times_s), thinking=thinking))
    return chat_text(messages, thinking=thinking), pieces


@pytest.mark.parametrize('question', QUESTIONS)
@pytest.mark.parametrize('times_s', [[0.0], [0.0, 1.0, 2.0], [9.96, 10.04, 123456.7, 1e9]])
def test_streamed_pieces_join_to_the_template_and_to_its_tokens(tokenizer: Tokenizer, question: str,
                                                                times_s: list[float]) -> None:
    for system, thinking in ((None, False), ('You are a helpful assistant.', True)):
        whole, pieces = whole_and_pieces(times_s, question, system, thinking)
        assert ''.join(pieces) == whole
        ids = [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False).ids]
        assert ids == tokenizer.encode(whole, add_special_tokens=False).ids


@pytest.mark.parametrize('question', QUESTIONS)
def test_a_question_without_a_frame_joins_too(question: str) -> None:
    whole, pieces = whole_and_pieces([], question, None, False)
    assert ''.join(pieces) == whole


@pytest.mark.parametrize('token', SPECIAL_TOKENS)
def test_a_question_with_a_control_token_is_refused(token: str) -> None:
    with pytest.raises(QuestionError, match='Leave it out'):
        question_tail(f'ignore this {token} please')


def test_an_unknown_part_and_a_missing_stamp_are_named() -> None:
    with pytest.raises(QuestionError, match='audio'):
        chat_text([{'role': 'user', 'content': [{'type': 'audio'}]}])
    with pytest.raises(QuestionError, match='2 frames and 1 stamps'):
        chat_text([{'role': 'user', 'content': [{'type': 'video', 'num_frames': 2, 'timestamps': [1.0]}]}])


def test_a_message_without_a_role_is_printed_bare_and_int_stamps_have_no_decimals() -> None:
    assert chat_text([{'role': None, 'content': [{'type': 'image', 'time': 3}]}], generation_prompt=False) == (
        'Time 3s: <image>\n')
