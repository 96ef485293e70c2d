"""The order in which words and vision tokens are laid out. Knows nothing of token ids, engines or caches.

Source: reference/penguin_vl.md 1.9. `chat_text` writes a whole conversation at once; a stream is written piece by piece
with `stream_head`, `frame_lead` and `question_tail`. The pieces join to exactly the text `chat_text` gives, and are
cut where the tokenizer cuts too: tokenised one by one, frames and then a question give the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penguin_ros.core.errors import QuestionError

IMAGE = '<image>'           # stands for the vision tokens of one frame
TURN_START, TURN_END = '<|im_start|>', '<|im_end|>'
SPECIAL_TOKENS = (IMAGE, TURN_START, TURN_END, '<|endoftext|>', '<think>', '</think>')

_NO_THINKING = '<think>\n\n</think>\n\n'


def chat_text(messages: Sequence[Mapping[str, Any]], *, generation_prompt: bool = True, thinking: bool = False) -> str:
    """A conversation as text, one ``<image>`` per picture or video frame.

    A message is {role, content}; content is a string or a list of parts: {type: text, text}, {type: image, time?},
    {type: video, num_frames, timestamps?}. With ``thinking`` the empty think block that silences it is left out.
    """
    text = ''.join(_turn(message['role'], _content(message['content'])) for message in messages)
    return text + _reply_head(thinking) if generation_prompt else text


def stream_head(system: str | None = None) -> str:
    """What stands before the first frame of a stream."""
    return (_turn('system', system) if system else '') + f'{TURN_START}user\n'


def frame_lead(time_s: float, *, first: bool) -> str:
    """What stands before a frame's vision tokens.

    The comma that ends the frame before is written here, because only now is it certain that no question follows it.
    """
    return ('' if first else ',') + f'Time {_one_decimal(time_s)}s:'


def question_tail(question: str, *, after_frame: bool = True, thinking: bool = False) -> str:
    """What stands after the last frame: the question, and the opening of the reply.

    Raises QuestionError where the question holds one of the model's control tokens: it could end the turn, or ask for a
    picture that is not there.
    """
    for token in SPECIAL_TOKENS:
        if token in question:
            raise QuestionError(f'the question contains {token}, which the model reads as a control token. Leave it out.')
    return ('\n' if after_frame else '') + f'{question}{TURN_END}\n' + _reply_head(thinking)


def _reply_head(thinking: bool) -> str:
    return f'{TURN_START}assistant\n' + ('' if thinking else _NO_THINKING)


def _turn(role: str | None, content: str) -> str:
    if role is None:
        return content
    if role == 'stream':
        return f'<|stream_start|>stream\n{content}<|stream_end|>\n'
    return f'{TURN_START}{role}\n{content}{TURN_END}\n'


def _content(content: str | Sequence[Mapping[str, Any]]) -> str:
    return content if isinstance(content, str) else ''.join(_part(part) for part in content)


def _part(part: Mapping[str, Any]) -> str:
    kind = part.get('type')
    if kind == 'text':
        return str(part['text'])
    if kind == 'image':
        # Pictures have a blank after the colon, video frames have none: the model was trained on both spellings.
        return f'Time {_one_decimal(part["time"])}s: {IMAGE}\n' if part.get('time') is not None else f'{IMAGE}\n'
    if kind == 'video':
        times_s = part.get('timestamps')
        leads = [''] * part['num_frames'] if times_s is None else [f'Time {_one_decimal(t)}s:' for t in times_s]
        if len(leads) != part['num_frames']:
            raise QuestionError(f'the video has {part["num_frames"]} frames and {len(leads)} stamps; give one for each frame.')
        return ','.join(lead + IMAGE for lead in leads) + '\n'
    raise QuestionError(f'a message part has type {kind!r}; it can be text, image or video.')


def _one_decimal(time_s: float) -> str:
    """12.0 for 11.96; a whole number given as int stays without a decimal, as in the published template."""
    return str(round(time_s, 1))
