"""The grammar: what is written is read back, and node, tokenizer and training agree on it."""

from __future__ import annotations

import pytest

from penguin_ros.core.frame import Region
from penguin_ros.core.grounding import ground
from penguin_ros.core.prompt import frame_lead, question_tail, stream_head
from penguin_ros.sim import world
from penguin_ros.training import texts
from penguin_ros.training.nano import nano_dialect
from penguin_ros.training.texts import Thing
from penguin_ros.training.tokenizer import build_tokenizer

THINGS = [Thing('person', 'blue', None, (0.5, 0.1, 0.7, 0.9)), Thing('sign', 'white', 7, (0.05, 0.2, 0.3, 0.5)),
          Thing('crate', 'red', None, (0.8, 0.6, 1.0, 1.0))]


def test_the_grammar_names_the_kinds_and_colours_of_the_world() -> None:
    assert set(texts.KINDS) == set(world.KINDS)
    assert set(texts.COLOURS) == set(world.COLOURS)


def test_a_caption_goes_from_left_to_right_and_is_read_back() -> None:
    text = texts.caption(THINGS)
    assert text.startswith('a white sign saying 7<box><55><205><305><505></box>; a person in blue<box>')
    assert text.endswith('<995></box>.')
    found = texts.read_things(text)
    assert [(thing.kind, thing.colour, thing.digit) for thing in found] == [
        ('sign', 'white', 7), ('person', 'blue', None), ('crate', 'red', None)]
    for thing, true in zip(found, [THINGS[1], THINGS[0], THINGS[2]]):
        assert thing.box == pytest.approx(true.box, abs=0.0051)


def test_boxes_can_be_written_in_digits_and_are_read_back_more_finely() -> None:
    text = texts.caption(THINGS, 'digits')
    assert text.startswith('a white sign saying 7<box>050,200,300,500</box>; a person in blue<box>500,100,700,900</box>')
    for thing, true in zip(texts.read_things(text), [THINGS[1], THINGS[0], THINGS[2]]):
        assert thing.box == pytest.approx(true.box, abs=0.0006)
    assert len(build_tokenizer().encode('<box>050,200,300,500</box>').ids) == 2 + 12 + 3


def test_an_empty_scene_is_nothing_and_reads_as_no_things() -> None:
    assert texts.caption([]) == 'nothing.'
    assert texts.read_things('nothing.') == []


@pytest.mark.parametrize('text', ['a pink crate.', 'a red horse<box><5><5><15><15></box>.', 'crate red', ''])
def test_what_is_not_in_the_grammar_is_no_thing(text: str) -> None:
    assert texts.read_things(text) == []


@pytest.mark.parametrize('coordinates', ['tokens', 'digits'])
def test_the_nodes_reader_finds_the_same_phrases_and_boxes(coordinates: texts.Coordinates) -> None:
    raw = texts.caption(THINGS, coordinates)
    grounded = ground(raw, ends=[len(raw)], probabilities=[1.0], height_px=240, width_px=320)
    assert grounded.malformed == 0
    assert [phrase.text for phrase in grounded.phrases] == ['a white sign saying 7', 'a person in blue', 'a red crate']
    assert grounded.phrases[1].region.x_min == pytest.approx(0.5 * 320, abs=2)


@pytest.mark.parametrize('coordinates', ['tokens', 'digits'])
def test_the_nodes_dialect_writes_boxes_as_they_were_trained(coordinates: texts.Coordinates) -> None:
    dialect = nano_dialect(coordinates)
    region = Region(32.5, 24.5, 160.5, 239.5)
    written = dialect.box_text(region, width_px=320, height_px=240)
    assert written == texts.box_text((32.5 / 320, 24.5 / 240, 160.5 / 320, 239.5 / 240), coordinates)
    assert dialect.with_region('', region, width_px=320, height_px=240) == texts.REGION_QUESTION.format(box=written)


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    for text in ('Grüße, 世界! \x00\ud7ff', 'Describe the scene with boxes.', texts.caption(THINGS), '\n\n  \t x'):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_words_of_the_grammar_are_single_tokens() -> None:
    tokenizer = build_tokenizer()
    words = [' red', ' crate', ' person', ' sign', 'Time', 'user', 'assistant', 'Describe', ' boxes', ' objects', '\n\n']
    assert [len(tokenizer.encode(word).ids) for word in words] == [1] * len(words)
    assert len(tokenizer.encode('<box><5><505><995><15></box>').ids) == 6
    assert tokenizer.get_vocab_size() < 700


def test_a_stream_tokenised_in_pieces_gives_the_ids_of_the_whole() -> None:
    tokenizer = build_tokenizer()
    pieces = [stream_head(), frame_lead(0.0, first=True), '<image>', frame_lead(11.96, first=False), '<image>',
              question_tail('What is in <box><5><5><55><95></box>?')]
    in_pieces = [token for piece in pieces for token in tokenizer.encode(piece).ids]
    assert in_pieces == tokenizer.encode(''.join(pieces)).ids


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert build_tokenizer().to_str() == build_tokenizer().to_str()
