"""The streaming solver's rules over many random streams and in chosen ones; the published solver against golden/tra."""

import json
import random
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penguin_ros.core.errors import BudgetError, ConfigError
from penguin_ros.core.grid import Grid, floor_grid, grid_tokens, native_grid
from penguin_ros.core.token_budget import HeldFrame, NewFrame, TokenBudget, WindowPlan, published_sizes, share_window

CASES = json.loads((Path(__file__).parents[1] / 'data/golden/tra/cases.json').read_text())
SIZES = [(720, 1280), (480, 640), (1080, 1920), (168, 168), (60, 80), (400, 30), (28, 28), (2000, 300)]


class Window:
    """What a caller keeps between two plans."""

    def __init__(self, budget: TokenBudget, merge: int = 2) -> None:
        self.budget, self.merge = budget, merge
        self.frames: list[tuple[str, float, bool, int]] = []    # camera, stamp in seconds, keyframe, tokens

    def held(self, now_s: float) -> list[HeldFrame]:
        return [HeldFrame(camera, now_s - stamp_s, keyframe, tokens) for camera, stamp_s, keyframe, tokens in self.frames]

    def step(self, now_s: float, new: NewFrame | None, live: set[str], most_frames: int | None = None) -> WindowPlan:
        plan = share_window(self.budget, self.held(now_s), new, live=live, merge=self.merge, most_frames=most_frames)
        self.frames = [(*frame[:3], tokens) for frame, tokens in zip(self.frames, plan.kept) if tokens]
        if new is not None and plan.grid is not None:
            self.frames.append((new.camera, now_s, new.keyframe, grid_tokens(plan.grid, self.merge)))
        return plan

    def stream(self, seconds: int, *, native: Grid, keyframe_every: int = 0, detail: float = 0.0) -> list[int]:
        """Tokens encoded each second by one camera; the first frame is a keyframe."""
        encoded = []
        for second in range(seconds):
            key = second == 0 or (keyframe_every > 0 and second % keyframe_every == 0)
            self.step(float(second), NewFrame('front', native, key, detail), {'front'})
            encoded.append(self.frames[-1][3])
        return encoded


def least_tokens(window: Window, new: NewFrame | None, live: set[str]) -> int:
    """What must stay, counted independently: the newest frame of each live camera at its floor, and the new one."""
    newest = {camera: tokens for camera, _, _, tokens in window.frames if camera in live}
    floors = {camera: min(window.budget.min_frame_tokens, tokens) for camera, tokens in newest.items()}
    if new is not None:
        least = floor_grid(new.native, window.budget.min_frame_tokens, merge=window.merge)
        floors[new.camera] = grid_tokens(least, window.merge)
    return sum(floors.values())


def check_rules(window: Window, held: list[HeldFrame], new: NewFrame | None, live: set[str], plan: WindowPlan,
                most_frames: int | None) -> None:
    budget = window.budget
    new_tokens = grid_tokens(plan.grid, window.merge) if plan.grid else 0
    assert plan.tokens == sum(plan.kept) + new_tokens <= budget.window_tokens
    assert (new is None) == (plan.grid is None)
    for frame, tokens in zip(held, plan.kept, strict=True):
        assert tokens == 0 or min(budget.min_frame_tokens, frame.tokens) <= tokens <= frame.tokens
    if new is not None and plan.grid is not None:
        assert plan.grid[0] <= new.native[0]
        assert plan.grid[1] <= new.native[1]
        assert new_tokens >= min(budget.min_frame_tokens, grid_tokens(new.native, window.merge))
    newest = {frame.camera: tokens for frame, tokens in zip(held, plan.kept) if not new or frame.camera != new.camera}
    assert all(newest[camera] > 0 for camera in live & set(newest))
    if most_frames is not None:
        count = defaultdict(int, {new.camera: 1} if new else {})
        for frame, tokens in zip(held, plan.kept):
            count[frame.camera] += tokens > 0
        assert all(number <= most_frames for number in count.values())


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 2 ** 32))
def test_no_rule_is_broken_in_100000_random_steps(seed: int) -> None:
    """250 streams of 400 steps: cameras come and go, sizes, rates and budgets change while frames are held."""
    rng = random.Random(seed)
    window = Window(TokenBudget(), merge=rng.choice([1, 2]))
    cameras: dict[str, tuple[int, int]] = {}
    now_s = 0.0
    for step in range(400):
        now_s += rng.choice([0.0, 0.03, 0.2, 1.0, 30.0])
        if not cameras or rng.random() < 0.03:
            cameras[f'camera {step}'] = rng.choice(SIZES)
        if len(cameras) > 5 or rng.random() < 0.02:
            cameras.pop(rng.choice(list(cameras)))
        if step == 0 or rng.random() < 0.05:
            floor = rng.choice([1, 4, 16, 17, 40])
            window.budget = TokenBudget(
                window_tokens=rng.choice([16, 64, 100, 256, 512, 3000]) + floor, min_frame_tokens=floor,
                keyframe_weight=rng.choice([1.0, 16.0, 300.0]), new_frame_share=rng.choice([0.05, 0.5, 1.0]),
                half_life_s=rng.choice([0.1, 5.0, 60.0]))
        new = None
        if cameras and rng.random() < 0.95:
            camera = rng.choice(list(cameras))
            if rng.random() < 0.02:
                cameras[camera] = rng.choice(SIZES)
            native = native_grid(*cameras[camera], merge=window.merge)
            new = NewFrame(camera, native, rng.random() < 0.2, rng.choice([0.0, rng.random(), 1.0]))
        live, most_frames, held = set(cameras), rng.choice([None, 1, 12]), window.held(now_s)
        if least_tokens(window, new, live) > window.budget.window_tokens:
            with pytest.raises(BudgetError, match=r'Raise window_tokens, lower min_frame_tokens or use fewer cameras'):
                window.step(now_s, new, live, most_frames)
            window.frames.clear()
            continue
        again = share_window(window.budget, held, new, live=live, merge=window.merge, most_frames=most_frames)
        plan = window.step(now_s, new, live, most_frames)
        assert plan == again
        check_rules(window, held, new, live, plan, most_frames)


HD = native_grid(720, 1280)


def test_a_static_scene_tends_to_the_floor_and_keeps_its_keyframe_in_detail() -> None:
    window = Window(TokenBudget(window_tokens=512))
    encoded = window.stream(600, native=HD)
    assert encoded[0] > 200
    assert set(encoded[1:]) == {grid_tokens(floor_grid(HD, 16))}
    _, stamp_s, keyframe, tokens = window.frames[0]
    assert (stamp_s, keyframe, tokens) == (0.0, True, encoded[0])


def test_a_keyframe_is_not_thinned_by_the_next_frames_of_its_scene() -> None:
    window = Window(TokenBudget(window_tokens=2048))
    first = window.stream(10, native=HD, detail=1.0)[0]
    assert window.frames[0][3] == first


def test_fast_changes_leave_the_newest_keyframe_its_detail() -> None:
    encoded = Window(TokenBudget(window_tokens=1024)).stream(30, native=HD, keyframe_every=1)
    assert min(encoded) == max(encoded) > 450


def test_frames_leave_in_order_intermediate_first_then_keyframes_are_thinned_then_leave() -> None:
    window = Window(TokenBudget(window_tokens=600))
    window.step(0.0, NewFrame('front', HD, True), {'front'})
    window.step(0.1, NewFrame('front', HD, False, 0.5), {'front'})
    left = {}
    for number in range(2, 12):
        window.step(number / 10, NewFrame('front', HD, True), {'front'})
        tokens = {stamp_s: count for _, stamp_s, _, count in window.frames}
        left[number] = (tokens.get(0.1, 0), tokens.get(0.0, 0))
    intermediate_gone = min(number for number, (intermediate, _) in left.items() if not intermediate)
    keyframe_thinned = min(number for number, (_, keyframe) in left.items() if keyframe < 200)
    keyframe_gone = min(number for number, (_, keyframe) in left.items() if not keyframe)
    assert intermediate_gone <= keyframe_thinned < keyframe_gone


def test_the_share_of_intermediate_frames_shrinks_smoothly_with_the_budget() -> None:
    def third_frame(window_tokens: int) -> int:
        window = Window(TokenBudget(window_tokens=window_tokens, new_frame_share=1.0))
        return window.stream(3, native=HD, detail=1.0)[2]

    tokens = [third_frame(window_tokens) for window_tokens in range(100, 4000, 20)]
    assert tokens[0] == grid_tokens(floor_grid(HD, 16))
    assert tokens[-1] == grid_tokens(HD)
    assert all(later <= earlier * 1.4 + 12 for earlier, later in pairwise(tokens))  # grids come in whole rows
    assert all(later >= earlier * 0.9 for earlier, later in pairwise(tokens))


def test_more_of_it_new_gives_an_intermediate_frame_more() -> None:
    def second_frame(detail: float) -> int:
        return Window(TokenBudget(window_tokens=4096)).stream(2, native=HD, detail=detail)[1]

    tokens = [second_frame(detail / 10) for detail in range(11)]
    assert tokens == sorted(tokens)
    assert tokens[0] == 18
    assert tokens[-1] > 1000


def test_cameras_share_one_window_and_a_vanished_one_gives_up_its_part() -> None:
    window = Window(TokenBudget(window_tokens=512))
    for second in range(20):
        for camera in ('front', 'rear'):
            window.step(float(second), NewFrame(camera, HD, second % 5 == 0, 0.2), {'front', 'rear'})
    both = {camera for camera, *_ in window.frames}
    for second in range(20, 300):
        window.step(float(second), NewFrame('front', HD, second % 5 == 0, 0.2), {'front'})
    assert both == {'front', 'rear'}
    assert {camera for camera, *_ in window.frames} == {'front'}


def test_a_lower_budget_is_met_without_a_new_frame() -> None:
    window = Window(TokenBudget(window_tokens=2048))
    window.stream(30, native=HD, detail=0.3)
    window.budget = replace(window.budget, window_tokens=100)
    plan = window.step(30.0, None, {'front'})
    assert plan.grid is None
    assert 16 <= plan.tokens <= 100
    assert plan.kept[-1] > 0


def test_a_floor_above_the_window_says_which_to_change() -> None:
    with pytest.raises(ConfigError, match=r'Lower min_frame_tokens or raise window_tokens'):
        TokenBudget(window_tokens=64, min_frame_tokens=65)


def test_a_plan_takes_well_under_a_millisecond_for_a_full_window() -> None:
    window = Window(TokenBudget(window_tokens=1024))
    window.stream(60, native=HD)
    start = time.thread_time()
    for _ in range(20):
        share_window(window.budget, window.held(60.0), NewFrame('front', HD, True), live={'front'})
    assert (time.thread_time() - start) / 20 < 0.01  # about 0.5 ms; the margin is for shared machines


@pytest.mark.parametrize('case', CASES, ids=lambda case: f'{case["id"]}')
def test_the_published_solver_equals_its_golden_sizes(case: dict) -> None:
    labels = case['frame_types'] or '0' * case['num_frames']
    clip = {'keys': labels.count('0'), 'intermediates': labels.count('1'), 'patch_px': case['patch_size'],
            'merge': case['merge_size'], 'min_tokens': case['min_tokens'], 'max_tokens': case['max_tokens']}
    if 'error' in case:
        with pytest.raises(BudgetError, match='without a keyframe'):
            published_sizes(case['height'], case['width'], **clip)
        return
    sizes = published_sizes(case['height'], case['width'], **clip)
    assert [sizes.key_px, sizes.intermediate_px] == [
        tuple(side) if side else None for side in (case['key_hw'], case['inter_hw'])]


def test_a_clip_without_frames_is_refused() -> None:
    with pytest.raises(BudgetError, match='Give at least one'):
        published_sizes(480, 640, keys=0, intermediates=0)
