# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Unsupervised SimCSE on the mT5 encoder: the sentence embedder of stage-1 mining (paper, appendix A.1.1).

A sentence is encoded twice under different dropout; each of its two vectors must find the other among the batch's
(Gao et al. 2021; mSimCSE, Wang et al. 2022, trains only on English and transfers to other languages). All layers of
the encoder are used, mean-pooled; the decoder is not trained.

Axes: S sentences, B of a batch, T tokens, D model.

  python -m class_jax.synthesis.stage1.simcse --gin_file=gin/synthesis/simcse.gin --gin.MODEL_DIR="'runs/simcse'" ...
"""

import argparse
import dataclasses
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gin
from class_jax.checkpoints import weights
from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.common.files import numbered_lines, replacing
from class_jax.configuration.gin_errors import explained
from class_jax.configuration.gin_files import parse
from class_jax.corpus.sampling import uniform_sample
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.corpus.wikipedia.pages import read_pages
from class_jax.distributed import sharding
from class_jax.errors import InputError
from class_jax.models import layers as nn
from class_jax.models.class_model import (
    ClassModel,
    Params,
    create,
    length_mask,
    merge,
    model_graph,
    param_shapes,
    split,
)
from class_jax.models.config import ModelConfig
from class_jax.models.inference import bucket_of, pad_rows
from class_jax.training.data import check_vocabulary
from class_jax.training.flags import rewrite_gin_flags
from class_jax.training.logs import MetricLog
from class_jax.training.optimizer import OptimizerConfig, make_optimizer
from class_jax.training.signals import caught_signals

_log = logging.getLogger(__name__)
TRAINED = ("embed", "encoder")
"""The parts of a model that SimCSE trains."""


@dataclasses.dataclass(frozen=True)
class SimcseConfig:
    """A SimCSE run.

    Attributes:
      model: the model; its dropout_rate is the augmentation, so it must not be 0.
      optimizer: optimizer and schedule; its total_steps is the length of the run.
      vocabulary: a SentencePiece model, by path or hub id.
      sentences: a folder of pages (its sentences are taken) or a text file with a sentence a line.
      init_from: weights to start from, as `TrainConfig.init_from` takes them; None starts from nothing.
      batch_size: sentences of a step; a sentence's negatives are the others.
      temperature: divides the cosines.
      max_sentences: a uniform sample of this many is used (and held in memory, as tokens).
      max_tokens: longer sentences are cut.
      min_words: shorter sentences are left out, where words are separated by blanks; and those of fewer than twice as
        many characters, in any script.
      buckets: token lengths that batches are padded to.
      mesh: devices.
      checkpoint_every: steps between two saves.
      log_every: steps between two lines of metrics.
      seed: of sample, order, dropout and first weights.
      progress: True shows a bar, False hides it, None shows it on a terminal.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    vocabulary: str
    sentences: str
    init_from: str | None = None
    batch_size: int = 256
    temperature: float = 0.05
    max_sentences: int = 1_000_000
    max_tokens: int = 64
    min_words: int = 4
    buckets: Sequence[int] = (32, 64)
    mesh: sharding.MeshConfig = sharding.MeshConfig()
    checkpoint_every: int = 1000
    log_every: int = 10
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self):
        if not 0.0 < self.model.dropout_rate < 1.0:
            raise InputError(
                f"is {self.model.dropout_rate}: dropout is what makes a sentence's two vectors differ",
                key="ModelConfig.dropout_rate",
                remedy="set it to 0.1",
            )
        if self.batch_size < 2 or self.temperature <= 0.0:
            key = "SimcseConfig.batch_size" if self.batch_size < 2 else "SimcseConfig.temperature"
            raise InputError("is too small", key=key, remedy="at least 2 sentences, a temperature above 0")


class State(NamedTuple):
    """What a step carries over: steps taken, the trained parameters, the optimizer's state."""

    step: jax.Array
    params: Params
    optimizer: optax.OptState


def sentence_vectors(model: ClassModel, ids: jax.Array, lengths: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Encodes sentences [B, T] of [B] tokens by the whole encoder; the mean of the final states, [B, D] float32.

    `key` is a dropout key, or None. A row without tokens gives zeros.
    """
    config, T = model.config, ids.shape[1]
    embed_key, lower_key, upper_key, out_key = nn.keys_for(key, 4)
    mask = length_mask(lengths, T)
    bias, mask_bias = model.encoder.relative_bias(T, T), jnp.where(mask, 0.0, nn.MASKED)[:, None, None, :]

    def layer(module: nn.EncoderLayer, x: jax.Array, k: jax.Array | None) -> jax.Array:
        return module(x, bias, mask_bias, k)

    x = nn.dropout(model.embed.embedding[...][ids].astype(config.dtype), config.dropout_rate, embed_key)
    x = nn.scan_layers(model.encoder.retriever_layers, layer, x, lower_key, remat=config.remat)
    x = nn.scan_layers(model.encoder.reader_layers, layer, x, upper_key, remat=config.remat)
    x = nn.dropout(model.encoder.norm(x), config.dropout_rate, out_key).astype(jnp.float32)
    return jnp.where(mask[..., None], x, 0.0).sum(axis=1) / jnp.maximum(lengths, 1)[:, None]


def unit(vectors: jax.Array) -> jax.Array:
    """Scales vectors [..., D] to length 1; zeros stay zeros."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(axis=-1, keepdims=True), 1e-12))


def simcse_loss(first: jax.Array, second: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Contrastive loss of two encodings [B, D] of the same sentences.

    -log(exp(cos(h_i, h'_i) / t) / sum over j of exp(cos(h_i, h'_j) / t)), averaged over the batch.

    Returns:
      The loss, and the share of sentences whose own second vector is their nearest; scalars.
    """
    logits = unit(first) @ unit(second).T / temperature
    loss = (jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)).mean()
    return loss, (jnp.argmax(logits, axis=1) == jnp.arange(len(logits))).mean()


def trained_part(params: Params) -> Params:
    """The subtree that SimCSE trains."""
    return {name: params[name] for name in TRAINED}


def with_stand_ins(part: Params, config: ModelConfig) -> Params:
    """A whole tree of which only `trained_part` is there; scalars take the place of what the encoder does not use."""
    return jax.tree.map(lambda x: jnp.zeros((), x.dtype), param_shapes(config)) | part


def make_step(
    config: SimcseConfig, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> Callable[[State, np.ndarray, np.ndarray], tuple[State, dict[str, jax.Array]]]:
    """The compiled step: `state, metrics = step(state, ids [B, T], lengths [B])`; old buffers are reused."""
    graph = model_graph(config.model)

    def step(state: State, ids: jax.Array, lengths: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            model = merge(graph, with_stand_ins(params, config.model))
            twice = sentence_vectors(model, jnp.concatenate([ids, ids]), jnp.concatenate([lengths, lengths]), key)
            return simcse_loss(*jnp.split(twice, 2), config.temperature)

        (value, accuracy), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        metrics = {"loss": value, "accuracy": accuracy, "grad_norm": optax.global_norm(gradients)}
        return State(state.step + 1, optax.apply_updates(state.params, updates), optimizer_state), metrics

    places, batch = _shardings(config.model, optimizer, mesh), sharding.batch_sharding(mesh)
    compiled = jax.jit(
        step,
        in_shardings=(places, batch, batch),
        out_shardings=(places, sharding.replicated(mesh)),
        donate_argnums=0,
    )

    def run(state: State, ids: np.ndarray, lengths: np.ndarray) -> tuple[State, dict[str, jax.Array]]:
        with jax.set_mesh(mesh):
            return compiled(state, ids, lengths)

    return run


def _shardings(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh) -> State:
    everywhere = sharding.replicated(mesh)
    params = trained_part(sharding.param_shardings(config, mesh))
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, place: place,
        jax.eval_shape(optimizer.init, trained_part(param_shapes(config))),
        params,
        transform_non_params=lambda _: everywhere,
    )
    return State(everywhere, params, moments)


class Sentences:
    """Sentences as tokens, in memory, in an order that depends only on the seed and the epoch.

    Attributes:
      fingerprint: of the sentences and of all that decides their batches.
    """

    def __init__(self, texts: Iterable[str], vocabulary: Vocabulary, config: SimcseConfig):
        """Draws and tokenises the sample.

        Raises:
          InputError: if there are fewer sentences than a batch holds.
        """
        long = (text for text in texts if _is_long_enough(text, config.min_words))
        chosen = uniform_sample(long, config.max_sentences, config.seed)
        encoded = [tokens_of(vocabulary, text, config.max_tokens) for text in chosen]
        if len(encoded) < config.batch_size:
            raise InputError(
                f"{len(encoded)} sentences of {config.min_words} words or more, for batches of {config.batch_size}",
                file=config.sentences,
                remedy="give more text or a smaller SimcseConfig.batch_size",
            )
        self._tokens = np.concatenate(encoded)
        self._ends = np.cumsum([len(row) for row in encoded])
        self._config = config
        digest = hashlib.sha256(f"{config.seed} {config.batch_size} {len(encoded)}".encode())
        digest.update(self._tokens.tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ends)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids [B, T] and lengths [B] of a step; the last, partial batch of an epoch is left out."""
        config = self._config
        epoch, place = divmod(step, len(self) // config.batch_size)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(self))
        chosen = order[place * config.batch_size : (place + 1) * config.batch_size]
        rows = [self._tokens[(self._ends[i - 1] if i else 0) : self._ends[i]] for i in chosen]
        return pad_rows(rows, bucket_of(max(map(len, rows)), config.buckets))


def tokens_of(vocabulary: Vocabulary, text: str, max_tokens: int) -> np.ndarray:
    """Returns a sentence's tokens, at most `max_tokens`, with the end of sequence; int32."""
    return np.array([*vocabulary.encode(text)[: max_tokens - 1], vocabulary.eos_id], np.int32)


def read_sentences(path: str | os.PathLike) -> Iterator[str]:
    """Streams sentences: of the pages in a folder, or the lines of a text file.

    Raises:
      InputError: if there is neither.
    """
    if Path(path).is_dir():
        for page in read_pages(path):
            yield from (page.sentence(i) for i in range(len(page.sentences)))
    else:
        yield from (line for _, line in numbered_lines(path) if line.strip())


def _is_long_enough(text: str, words: int) -> bool:
    return len(text.split()) >= words or (" " not in text.strip() and len(text.strip()) >= 2 * words)


def train_simcse(model_dir: str, config: SimcseConfig) -> dict[str, float]:
    """Trains, resuming from the newest checkpoint in `model_dir`; the result is the folder `model_dir/model`.

    Killed at any step and started again, it takes the same steps as if it had never stopped.

    Returns:
      The last step's metrics.

    Raises:
      InputError: for unusable settings, sentences, weights or checkpoints; or when stopped by a signal.
    """
    folder = Path(model_dir)
    vocabulary = Vocabulary.load(config.vocabulary)
    check_vocabulary(vocabulary, config.model)
    sentences = Sentences(read_sentences(config.sentences), vocabulary, config)
    _log.info("%d sentences", len(sentences))
    mesh = sharding.make_mesh(config.mesh)
    optimizer = make_optimizer(config.optimizer)
    places = _shardings(config.model, optimizer, mesh)
    first = _first_params(config, vocabulary)
    metrics: dict[str, float] = {}
    expect = {
        "model": config.model.fingerprint,
        "vocabulary": vocabulary.fingerprint,
        "sentences": sentences.fingerprint,
    }
    with TrainCheckpoints(folder / "checkpoints", keep_last=1, keep_best=0) as checkpoints:
        state, start = _start(config.model, optimizer, places, first, checkpoints, expect)
        step_once = make_step(config, optimizer, mesh)
        log = MetricLog(
            folder,
            config.optimizer.total_steps,
            start,
            config.batch_size,
            tensorboard=False,
            progress=config.progress,
        )
        try:
            with caught_signals() as stopping:
                for step in range(start, config.optimizer.total_steps):
                    state, found = step_once(state, *sentences.batch(step))
                    done = step + 1
                    last = done == config.optimizer.total_steps or bool(stopping)
                    metrics = _report(log, done, found, last or done % config.log_every == 0, metrics)
                    if last or done % config.checkpoint_every == 0:
                        checkpoints.save(done, state._asdict(), expect)
                    if stopping:
                        break
        finally:
            log.close()
        checkpoints.wait()
        if stopping:
            raise InputError(
                f"stopped by {stopping[0]} at step {done}, which is saved",
                file=folder,
                remedy="the same command resumes from there",
            )
    whole = jax.device_get(first) | jax.device_get(state.params)
    save_pretrained(folder / "model", whole, config.model, vocabulary.path)
    return metrics


def _first_params(config: SimcseConfig, vocabulary: Vocabulary) -> Params:
    if config.init_from is not None:
        return weights.load_params(config.init_from, config.model, config.seed, vocabulary=vocabulary.fingerprint)
    return jax.jit(lambda: split(create(config.model, config.seed))[1])()


def _start(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    places: State,
    first: Params,
    checkpoints: TrainCheckpoints,
    expect: dict[str, str],
) -> tuple[State, int]:
    """The newest checkpoint's state and step, or the first."""

    def make(params: Params) -> State:
        return State(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shapes = jax.eval_shape(make, trained_part(param_shapes(config)))
    targets = jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places)
    restored = checkpoints.restore(targets._asdict(), expect=expect)
    if restored is not None:
        return State(**restored[0]), restored[2]
    return jax.jit(make, out_shardings=places)(trained_part(first)), 0


def _report(
    log: MetricLog, done: int, found: dict[str, jax.Array], write: bool, before: dict[str, float]
) -> dict[str, float]:
    """Shows a step's progress; reads its metrics only where they are written, so that the device need not wait."""
    if not write:
        log.advance(before.get("loss", float("nan")))
        return before
    values = {name: float(value) for name, value in found.items()}
    if not np.isfinite(values["loss"]):
        raise InputError(f"the loss of step {done} is not finite", key="SimCSE", remedy="lower the learning rate")
    log.advance(values["loss"])
    log.write(done, values)
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Trains from gin files; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s", force=True)
    logging.getLogger("jax").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(
        prog="python -m class_jax.synthesis.stage1.simcse", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--gin_file", action="append", required=True, help="gin file; may be given several times")
    parser.add_argument("--gin_bindings", action="append", default=[], help="single gin binding; likewise")
    arguments = rewrite_gin_flags(sys.argv[1:] if argv is None else argv)
    try:
        given = parser.parse_args(arguments)
        _train_from_gin(given.gin_file, given.gin_bindings)
    except InputError as error:
        print(f"error: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 2
    return 0


def _train_from_gin(files: Sequence[str], bindings: Sequence[str]) -> dict[str, Any]:
    """As the trainer does: the parsed configuration is kept in the run's folder."""
    parse(files, bindings)
    try:
        model_dir = str(gin.query_parameter("%MODEL_DIR"))
    except ValueError as error:
        raise InputError("is not set", key="MODEL_DIR", remedy="--gin.MODEL_DIR=\"'runs/name'\"") from error
    try:
        config = gin.get_configurable(SimcseConfig)()
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise explained(error, files) from error
    with replacing(Path(model_dir) / "config.gin") as f:
        f.write(gin.config_str())
    return train_simcse(model_dir, config)


if __name__ == "__main__":
    # Under the name by which gin files import it: gin would take `__main__.SimcseConfig` for another function.
    from class_jax.synthesis.stage1 import simcse

    sys.exit(simcse.main())
