import pytest
from hypothesis import given
from hypothesis import strategies as st

from penguin_ros.core.frame import Region
from penguin_ros.core.grounding import ground


def read(raw: str, width_px: int = 1000, height_px: int = 500):
    return ground(raw, ends=list(range(1, len(raw) + 1)), probabilities=[0.5] * len(raw), height_px=height_px,
                  width_px=width_px)


@pytest.mark.parametrize('raw', [
    'a red crate<box><100><200><300><400></box>; a person in blue<box><500><0><600><1000></box>.',
    'a red crate <box>100 200 300 400</box>; a person in blue <box> 500, 0, 600, 1000 </box>.',
    'a red crate [100, 200, 300, 400]; a person in blue [500, 0, 600, 1000].',
    'a red crate <|box_start|>(100,200),(300,400)<|box_end|>; a person in blue <|box_start|>(500,0),(600,1000)<|box_end|>.',
    '<ref>a red crate</ref><box>(100,200),(300,400)</box>; <ref>a person in blue</ref><box>(500,0),(600,1000)</box>.',
    'a red crate (100,200),(300,400); a person in blue (500,0),(600,1000).',
])
def test_every_wrapper_gives_the_same_phrases_and_boxes(raw: str) -> None:
    grounded = read(raw)
    assert grounded.text == 'a red crate; a person in blue.'
    assert [phrase.text for phrase in grounded.phrases] == ['a red crate', 'a person in blue']
    assert [phrase.region for phrase in grounded.phrases] == [Region(100, 100, 300, 200), Region(500, 0, 600, 500)]
    for phrase in grounded.phrases:
        assert grounded.text[phrase.begin:phrase.end] == phrase.text
    assert grounded.malformed == 0


def test_a_json_answer_is_read_too() -> None:
    grounded = read('```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "a red crate"}, {"bbox_2d": [0, 0, 2000, 5], '
                    '"label": "a wall"}]\n```')
    assert grounded.text == 'a red crate; a wall'
    assert [phrase.region for phrase in grounded.phrases] == [Region(100, 100, 300, 200)]
    assert grounded.malformed == 1


@pytest.mark.parametrize('box', [
    '<box><100><200><300></box>', '<box><100><200><300><400><500></box>', '<box>100 200 300 1001</box>',
    '<box>-5 200 300 400</box>', '<box>1.5 200 300 400</box>', '<box>a b c d</box>', '<box></box>',
    '<box>100 200 100 400</box>', '<box>100 200 300', '[100, 200, 300, 4000]'])
def test_a_malformed_box_is_counted_and_leaves_no_box(box: str) -> None:
    grounded = read(f'a red crate{box}')
    assert grounded.malformed == 1
    assert grounded.phrases == ()
    assert grounded.text.startswith('a red crate')


def test_reversed_corners_are_put_in_order() -> None:
    assert read('a crate<box>300 400 100 200</box>').phrases[0].region == Region(100, 100, 300, 200)


def test_lists_of_other_numbers_are_text() -> None:
    assert read('It has rows [1, 2] and [3].').text == 'It has rows [1, 2] and [3].'


def test_a_phrases_confidence_is_the_mean_over_its_own_tokens() -> None:
    raw = 'a cat<box>1 2 3 4</box>; a dog<box>5 6 7 8</box>.'
    cut = raw.index(';')
    grounded = ground(raw, ends=[cut, cut + 2, len(raw)], probabilities=[0.9, 0.1, 0.4], height_px=100, width_px=100)
    assert [phrase.confidence for phrase in grounded.phrases] == [pytest.approx(0.9), pytest.approx(0.4)]


def test_nothing_named_gives_no_phrase() -> None:
    assert read('nothing.') == read('nothing.')
    assert read('nothing.').phrases == ()
    assert read('').text == ''


@given(st.text(alphabet='<box>/[]()0123456789,; ab{}":|_', max_size=80))
def test_no_text_makes_an_impossible_box(raw: str) -> None:
    grounded = read(raw)
    for phrase in grounded.phrases:
        assert phrase.region is not None
        assert 0 <= phrase.region.x_min < phrase.region.x_max <= 1000
        assert 0 <= phrase.region.y_min < phrase.region.y_max <= 500
        assert grounded.text[phrase.begin:phrase.end] == phrase.text
