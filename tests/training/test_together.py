"""Processes that train together hold the same weights and learn from all their shares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from penguin_ros.training.curriculum import pictures_only
from penguin_ros.training.nano import NanoRun, train_nano
from penguin_ros.training.network import TowerShape
from penguin_ros.training.together import Team, team_of
from tests.training.drawn import draw_split


def _parameters(value: float) -> list[torch.nn.Parameter]:
    parameters = [torch.nn.Parameter(torch.full((2, 3), value)), torch.nn.Parameter(torch.full((4,), value))]
    parameters[0].grad = torch.full((2, 3), value)
    return parameters       # the second has no gradient in this process


def _follow(team: Team, folder: Path) -> None:
    parameters = _parameters(10.0)
    team.share(parameters)
    told = team.hears([-1.0])
    team.agree(parameters)
    (folder / 'heard.json').write_text(json.dumps({
        'gradients': [float(parameter.grad.mean()) for parameter in parameters if parameter.grad is not None],
        'told': told, 'weights': [float(parameter.mean()) for parameter in parameters]}))


def test_gradients_become_the_mean_and_weights_and_times_those_of_the_first(tmp_path: Path) -> None:
    with team_of(2, _follow, tmp_path) as team:
        parameters = _parameters(4.0)
        team.share(parameters)
        assert team.hears([1234.5678]) == [1234.5678]
        team.agree(parameters)
        assert [float(parameter.grad.mean()) for parameter in parameters if parameter.grad is not None] == [7.0, 0.0]
    heard = json.loads((tmp_path / 'heard.json').read_text())
    assert heard == {'gradients': [7.0, 0.0], 'told': [1234.5678], 'weights': [4.0, 4.0]}


def test_jobs_are_dealt_so_that_all_have_about_as_much_to_do() -> None:
    costs = [9.0, 1.0, 5.0, 4.0, 1.0]
    owners = Team(rank=1, size=2).owners(costs)
    assert owners == Team(rank=0, size=2).owners(costs), 'all processes think alike'
    assert sorted(sum(cost for cost, owner in zip(costs, owners) if owner == rank) for rank in range(2)) == [10.0, 10.0]
    assert Team().owners(costs) == [0] * 5


def _follow_exchange(team: Team, folder: Path) -> None:
    found = team.exchange([torch.full((2, 3), 1.0), torch.full((4,), 2.0), torch.full((5,), 3.0)], [1, 0, 1])
    (folder / 'heard.json').write_text(json.dumps([part.tolist() for part in found]))


def test_every_process_has_the_results_of_all(tmp_path: Path) -> None:
    with team_of(2, _follow_exchange, tmp_path) as team:
        mine = [torch.zeros(2, 3), torch.full((4,), 7.0), torch.zeros(5)]
        found = [part.tolist() for part in team.exchange(mine, [1, 0, 1])]
    assert found == [[[1.0] * 3] * 2, [7.0] * 4, [3.0] * 5]
    assert json.loads((tmp_path / 'heard.json').read_text()) == found


def _fail(team: Team) -> None:
    raise SystemExit(3)


def test_if_one_process_ends_the_others_do_not_wait_for_it() -> None:
    with pytest.raises(RuntimeError), team_of(2, _fail) as team:
        team.share(_parameters(1.0))


def test_alone_nothing_is_shared() -> None:
    with team_of(1, _fail) as team:
        parameters = _parameters(4.0)
        team.share(parameters)
        team.agree(parameters)
        assert team.hears([2.0]) == [2.0]
        assert parameters[1].grad is None


def test_two_processes_train_one_model_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    draw_split(tmp_path / 'train', 40, seed=1)
    draw_split(tmp_path / 'valid', 4, seed=2)
    run = NanoRun(data=tmp_path, out=tmp_path / 'out', minutes=60, tower=TowerShape(width=96, layers=1, heads=3, ffn=128),
                  curriculum=pictures_only(main_grid=(4, 5), rows=8, warmup_steps=5), compile_blocks=False, look_scenes=4,
                  look_every_s=0.0, processes=2, max_steps=3)
    train_nano(run)
    first = load_file(tmp_path / 'out' / 'model.safetensors')
    train_nano(replace(run, max_steps=5), resume=True)
    lines = [json.loads(line) for line in (tmp_path / 'out' / 'log.jsonl').read_text().splitlines()]
    assert [line['processes'] for line in lines if 'run' in line] == [2, 2]
    steps = [line for line in lines if 'step' in line]
    assert [line['step'] for line in steps] == [1, 2, 3, 4, 5]
    assert [line['images'] for line in steps] == [8, 16, 24, 32, 40], 'four of each process'
    later = load_file(tmp_path / 'out' / 'model.safetensors')
    assert any(not torch.equal(first[name], later[name]) for name in first)
