"""Train the nano model from nothing to weights: one loop, resumable at any minute. Knows nothing of engines or ONNX.

What the run writes into its folder: `log.jsonl` (one line per look), `state.pt` (to go on from), and the model in the
layout of a public checkpoint (`model.safetensors`, `config.json`, `tokenizer.json`, ...).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from penguin_ros.core.dialect import Dialect
from penguin_ros.core.errors import ConfigError
from penguin_ros.sim.clip import VIDEO_SUFFIX
from penguin_ros.training import texts
from penguin_ros.training.curriculum import ClipDeck, Curriculum
from penguin_ros.training.dataset import Clip, Split, open_split
from penguin_ros.training.llm_start import start_encoder_from, train_text_model
from penguin_ros.training.memory import MemoryHead
from penguin_ros.training.montage import backwards
from penguin_ros.training.muon import Muon
from penguin_ros.training.network import Network, NetworkShape, TowerShape
from penguin_ros.training.objective import DenseHead, StepLoss, step_loss, word_weights
from penguin_ros.training.rows import Batch, Words, build_batch
from penguin_ros.training.teacher import Reconstruction, WarmUp
from penguin_ros.training.together import Team, team_of
from penguin_ros.training.tokenizer import build_tokenizer
from penguin_ros.training.validation import validate

_AGREE_EVERY_STEPS = 200

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class NanoRun:
    """Everything that decides what a run does."""

    data: Path
    out: Path
    minutes: float = 90.0
    seed: int = 7
    curriculum: Curriculum = field(default_factory=Curriculum)
    tower: TowerShape = field(default_factory=TowerShape)   # of encoder and decoder alike
    decoder_layers: int | None = None       # None: as many as the encoder's
    coordinates: texts.Coordinates = 'tokens'
    processes: int = 1              # of one thread each, where there is no GPU; each takes its share of every batch
    muon: bool = True               # for the matrices inside the network; else AdamW for everything
    start_from: Path | None = None  # a checkpoint of a nano model whose weights to go on from
    warm_up: WarmUp | None = None   # the encoder follows a teacher at first
    llm_start_steps: int = 0        # above 0: the encoder starts from a text model trained for so many steps
    look_every_s: float = 240.0     # how often to validate and save
    look_scenes: int = 96
    line_every_s: float = 30.0      # how often to write a line of losses
    compile_blocks: bool = True
    max_steps: int | None = None    # instead of minutes: any machine makes as many


class Drawn(NamedTuple):
    """What a step learns from."""

    batch: Batch
    old_frames_learn: bool


class Trainer:
    """The state of a run, as saved and resumed."""

    def __init__(self, run: NanoRun, team: Team | None = None) -> None:
        self.run = run
        self.team = team or Team()
        torch.manual_seed(run.seed)
        self.words = Words(build_tokenizer(), run.coordinates)
        tokenizer = self.words.tokenizer
        shape = NetworkShape(
            vocabulary=tokenizer.get_vocab_size(), image_token_id=self.words.image_id,
            encoder=replace(run.tower, rope_theta=100.0),
            decoder=replace(run.tower, rope_theta=10_000.0, layers=run.decoder_layers or run.tower.layers))
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.network = Network(shape)
        self.network.order_coordinates(self.words.id_of(texts.COORDINATE_TOKENS[0]), texts.COORDINATE_BINS)
        self.network.to(self.device)
        self.head = DenseHead(shape.encoder.width, distance=run.curriculum.dense_distance).to(self.device)
        self.reconstruction = run.warm_up and Reconstruction(run.warm_up, student_width=shape.encoder.width, device=self.device)
        self.memory_head = MemoryHead(shape.decoder.width).to(self.device) if run.curriculum.memory_weight else None
        of_features = [self.head, *([self.reconstruction.adapter] if self.reconstruction else [])]
        heads = [*of_features, *([self.memory_head] if self.memory_head else [])]
        dropped = [parameter for head in heads for parameter in head.parameters()]
        self.parameters = [*self.network.parameters(), *dropped]
        self.seeing = [parameter for part in (*self.network.eye(), *of_features) for parameter in part.parameters()]
        self.optimizers = build_optimizers(self.network, dropped, run.curriculum, muon=run.muon, team=self.team)
        self.weights = word_weights(self.words).to(self.device)
        self.step = self.drawn = 0
        self.images = 0
        self.trained_s = 0.0

    def start_from_weights(self, folder: Path) -> None:
        """Take a nano model's weights; raises ConfigError where they are not of this shape and these words."""
        try:
            tokenizer = Tokenizer.from_str((folder / 'tokenizer.json').read_text(encoding='utf-8'))
            tensors = load_file(folder / 'model.safetensors')
            self.network.load_checkpoint({name: tensor.float() for name, tensor in tensors.items()})
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise ConfigError(f'{folder} holds no nano model of this shape to go on from ({error}). '
                              'Name a folder that penguin train wrote, or engines/nano.') from error
        if tokenizer.to_str() != self.words.tokenizer.to_str():
            raise ConfigError(f'the model in {folder} was trained with other words. Leave --from out, to train from random '
                              'weights.')

    def start_from_text(self, clips: list[Clip]) -> None:
        shape = self.network.shape
        text_model = Network(replace(shape, decoder=replace(shape.encoder, rope_theta=shape.decoder.rope_theta)))
        train_text_model(text_model, clips, self.words, steps=self.run.llm_start_steps, seed=self.run.seed)
        start_encoder_from(self.network, text_model)

    @property
    def progress(self) -> float:
        return self.step / self.run.max_steps if self.run.max_steps else self.trained_s / (60 * self.run.minutes)

    def goes_on(self) -> bool:
        """Whether there is another step to make; by the first process's clock, which decides about rates too."""
        self.trained_s, = self.team.hears([self.trained_s])
        if self.step % _AGREE_EVERY_STEPS == 0:
            self.team.agree(self.parameters)        # the same sums give the same weights, but nothing says they always must
        return self.progress < 1.0

    def save(self) -> None:
        path = self.run.out / 'state.pt'
        torch.save({
            'network': self.network.state_dict(), 'head': self.head.state_dict(),
            'memory_head': self.memory_head.state_dict() if self.memory_head else None,
            'adapter': self.reconstruction.adapter.state_dict() if self.reconstruction else None,
            'optimizers': [optimizer.state_dict() for optimizer, _ in self.optimizers],
            'step': self.step, 'images': self.images, 'trained_s': self.trained_s}, path.with_suffix('.part'))
        os.replace(path.with_suffix('.part'), path)
        write_model(self.run.out, self.network, self.words)

    def load(self) -> bool:
        path = self.run.out / 'state.pt'
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if (state.get('adapter') is None) != (self.reconstruction is None):
            raise ConfigError(f'{path} is of a run {"without" if self.reconstruction else "with"} a teacher. '
                              'Go on as it began: give --teacher and --warm-up-steps to all of a run, or to none of it.')
        self.network.load_state_dict(state['network'])
        self.head.load_state_dict(state['head'])
        if self.memory_head:
            self.memory_head.load_state_dict(state['memory_head'])
        if self.reconstruction:
            self.reconstruction.adapter.load_state_dict(state['adapter'])
        for (optimizer, _), kept in zip(self.optimizers, state['optimizers']):
            optimizer.load_state_dict(kept)
        self.step, self.images, self.trained_s = state['step'], state['images'], state['trained_s']
        self.drawn = self.step
        return True

    def deck(self) -> ClipDeck:
        """Clips in an order of this process's own."""
        return ClipDeck(random.Random(f'{self.run.seed} clips from step {self.step} share {self.team.rank}'))

    def draw(self, split: Split, deck: ClipDeck) -> Drawn:
        """The next batch, in a form that another thread can make while a step runs."""
        # Every process draws the same layout, and other clips for it: shares of one batch cost the same.
        shared = random.Random(f'{self.run.seed} batch {self.drawn}')
        rng = random.Random(f'{self.run.seed} batch {self.drawn} share {self.team.rank}')
        self.drawn += 1
        layout, rows = self.run.curriculum.layout(shared, self.progress)
        rows = max(rows // self.team.size, 1)
        frames = len(layout.grids)
        clips = (deck.montages(split.clips, rows, frames=frames) if layout.is_montage
                 else deck.deal(split.clips, rows, least_frames=frames))
        share = self.run.curriculum.backwards_share
        if share and frames > 1 and not layout.is_montage:
            clips = [backwards(clip) if rng.random() < share else clip for clip in clips]
        batch = build_batch(split, clips, layout, self.words, rng, with_memory=self.memory_head is not None)
        return Drawn(batch, shared.random() < self.run.curriculum.old_frames_learn)

    def train_step(self, drawn: Drawn) -> StepLoss:
        """Learn from one batch."""
        curriculum, batch = self.run.curriculum, drawn.batch
        share = curriculum.lr_share(self.step, self.progress)
        only_dense = self.progress < curriculum.sees_until
        loss = step_loss(self.network, self.head, batch, weights=self.weights,
                         dense_weight=curriculum.dense_weight_at(self.progress),
                         short_weight=curriculum.short_weight_at(self.progress),
                         old_frames_learn=drawn.old_frames_learn,
                         memory_head=self.memory_head, memory_weight=curriculum.memory_weight_at(self.progress),
                         pointer_weight=curriculum.pointer_weight_at(self.progress),
                         only_heads=self.step < curriculum.heads_alone_steps,
                         only_dense=only_dense)
        total = loss.total
        if self.reconstruction:
            total = self.reconstruction.added_to(total, batch.images, loss.features, step=self.step)
        total.backward()
        self.team.share(self.seeing if only_dense else self.parameters)     # without a gradient weights do not even decay
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, peak_lr in self.optimizers:
            for group in optimizer.param_groups:
                group['lr'] = peak_lr * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.images += batch.image_count * self.team.size
        return loss


Optimizers = list[tuple[torch.optim.Optimizer, float]]      # each with its learning rate at the peak


def build_optimizers(network: Network, dropped: Sequence[torch.nn.Parameter], curriculum: Curriculum, *,
                     muon: bool = True, team: Team | None = None) -> Optimizers:
    """Muon for the matrices inside the network, AdamW for embeddings, norms and what is dropped after training.

    Muon (Jordan 2024) makes each matrix's update orthogonal; here it reached a given loss in about two thirds of AdamW's
    steps, for a quarter more time a step. Its rate is scaled to AdamW's root mean square, so both fall alike.
    """
    matrices = [parameter for name, parameter in network.named_parameters()
                if muon and parameter.ndim == 2 and 'embedding' not in name]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in (*network.parameters(), *dropped) if id(parameter) not in taken]
    adamw = torch.optim.AdamW(
        [{'params': [p for p in others if p.ndim > 1], 'weight_decay': 0.05},
         {'params': [p for p in others if p.ndim <= 1], 'weight_decay': 0.0}],
        lr=curriculum.peak_lr, betas=(0.9, 0.98), fused=True)
    if not muon:
        return [(adamw, curriculum.peak_lr)]
    inner = Muon(matrices, lr=curriculum.peak_matrix_lr, weight_decay=0.05, team=team)
    return [(inner, curriculum.peak_matrix_lr), (adamw, curriculum.peak_lr)]


def train_nano(run: NanoRun, *, resume: bool = False, report: Report = lambda line: None) -> dict[str, Any]:
    """Train until the run's minutes (or steps) are spent; returns the last look.

    The data are the folders named train and valid, with train-video and valid-video beside them where there are any.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    with team_of(run.processes, _follow, run, resume) as team:
        return _lead(team, run, resume, report)


def _begin(team: Team, run: NanoRun, resume: bool) -> tuple[Trainer, Split, ClipDeck, bool]:
    """A run where it begins or goes on, the same in every process but for the order of clips."""
    trainer = Trainer(run, team)
    train = open_split(*folders_of(run.data, 'train'))
    resumed = resume and trainer.load()
    if run.start_from and not resumed:
        trainer.start_from_weights(run.start_from)
    if run.llm_start_steps and not resumed:
        trainer.start_from_text(train.clips)
    if run.compile_blocks:
        torch._dynamo.config.recompile_limit = 64  # a few variants per range of sizes, and the curriculum has many sizes
        for block in (*trainer.network.encoder, *trainer.network.decoder):
            block.compile(dynamic=True)
    return trainer, train, trainer.deck(), resumed


def _follow(team: Team, run: NanoRun, resume: bool) -> None:
    """Any process but the first: its share of every step, nothing else."""
    trainer, train, deck, _ = _begin(team, run, resume)
    with ThreadPoolExecutor(max_workers=1) as drawer:
        coming = drawer.submit(trainer.draw, train, deck)
        while trainer.goes_on():
            drawn, coming = coming.result(), drawer.submit(trainer.draw, train, deck)
            trainer.train_step(drawn)
            if trainer.step % _AGREE_EVERY_STEPS == 0:
                train.refresh()


def _lead(team: Team, run: NanoRun, resume: bool, report: Report) -> dict[str, Any]:
    valid = open_split(*folders_of(run.data, 'valid'))
    trainer, train, deck, resumed = _begin(team, run, resume)
    log_path = run.out / 'log.jsonl'
    losses: dict[str, list[float]] = {'answer_loss': [], 'dense_loss': [], 'memory_loss': [], 'pointer_loss': []}
    look: dict[str, Any] = {}

    with log_path.open('a' if resumed else 'w', encoding='utf-8') as log, ThreadPoolExecutor(max_workers=1) as drawer:
        def write(line: dict[str, Any]) -> None:
            log.write(json.dumps(line, default=str) + '\n')
            log.flush()
            report(line)

        write({'run': asdict(run), 'parameters': sum(p.numel() for p in trainer.network.parameters()),
               'resumed_at_step': trainer.step, 'torch': torch.__version__,
               'processes': team.size, 'threads': torch.get_num_threads(), 'device': str(trainer.device)})
        last_look_s = last_line_s = trainer.trained_s
        images_before = trainer.images
        coming = drawer.submit(trainer.draw, train, deck)
        while trainer.goes_on():
            begun = time.monotonic()
            drawn, coming = coming.result(), drawer.submit(trainer.draw, train, deck)
            loss = trainer.train_step(drawn)
            trainer.trained_s += time.monotonic() - begun
            for values, value in zip(losses.values(), (loss.answer, loss.dense, loss.memory, loss.pointer)):
                values.append(value)
            is_last = trainer.progress >= 1.0
            if is_last or trainer.trained_s - last_line_s >= min(run.line_every_s, run.look_every_s):
                span_s = trainer.trained_s - last_line_s
                line = {'step': trainer.step, 'images': trainer.images, 'trained_s': round(trainer.trained_s, 1),
                        'images_per_s': round((trainer.images - images_before) / max(span_s, 1e-9), 1),
                        'lr': trainer.optimizers[0][0].param_groups[0]['lr'],
                        **{name: sum(values) / len(values) for name, values in losses.items()},
                        'train_frames': train.frame_count}
                last_line_s, images_before = trainer.trained_s, trainer.images
                losses = {name: [] for name in losses}
                train.refresh()
                if is_last or trainer.trained_s - last_look_s >= run.look_every_s:
                    last_look_s = trainer.trained_s
                    trainer.save()
                    line['valid'] = look = validate(trainer.network, valid, trainer.words, scenes=run.look_scenes,
                                                    grid=run.curriculum.main_grid)
                write(line)
    return look


def folders_of(data: Path, split: str) -> list[Path]:
    """The folder of a split and, where there is one, that of its longer clips."""
    videos = data / (split + VIDEO_SUFFIX)
    return [data / split, *([videos] if videos.exists() else [])]


def decoder_layers_of(folder: Path) -> int:
    """How many layers the decoder of a trained nano model has; raises ConfigError where there is no such model."""
    try:
        layers: int = json.loads((folder / 'config.json').read_text(encoding='utf-8'))['num_hidden_layers']
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f'{folder} holds no model to go on from ({error}). '
                          'Name a folder that penguin train wrote, or engines/nano.') from error
    return layers


def nano_dialect(coordinates: texts.Coordinates = 'tokens') -> Dialect:
    """How the node must ask this model, and how it writes boxes (texts.py)."""
    tokens = Dialect(
        caption_instruction=texts.CAPTION_INSTRUCTION, region_question=texts.REGION_QUESTION,
        region_prefix=texts.REGION_PREFIX, box_begin='<box>', box_end='</box>', coordinate='<{value}>', separator='',
        coordinate_step=1000 // texts.COORDINATE_BINS, coordinate_first=500 // texts.COORDINATE_BINS)
    if coordinates == 'tokens':
        return tokens
    return replace(tokens, coordinate='{value:03d}', separator=',', coordinate_step=1, coordinate_first=0)


def write_model(folder: Path, network: Network, words: Words) -> None:
    """The model in the layout of a public checkpoint, weights in float16, beside its tokenizer and dialect."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / 'model.safetensors.part'
    tensors = {name: tensor.half() for name, tensor in network.checkpoint().items()}
    save_file(tensors, str(unfinished), metadata={'format': 'pt'})
    os.replace(unfinished, folder / 'model.safetensors')
    words.tokenizer.save(str(folder / 'tokenizer.json'))
    _write_json(folder / 'dialect.json', asdict(nano_dialect(words.coordinates)))
    _write_json(folder / 'config.json', network.shape.config())
    _write_json(folder / 'preprocessor_config.json', {
        'do_convert_rgb': True, 'do_normalize': True, 'do_rescale': True, 'do_resize': True,
        'image_mean': [0.5, 0.5, 0.5], 'image_std': [0.5, 0.5, 0.5], 'rescale_factor': 1 / 255, 'resample': 3,
        'patch_size': 14, 'min_tokens': 16, 'max_tokens': 16384})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + '\n', encoding='utf-8')
