# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a training step minimises: end-to-end training and stage-1 distillation, on whole batches.

The batch is encoded and read in micro-batches: a `lax.scan` over a `jax.checkpoint`-ed body keeps one micro-batch's
activations at a time and gives the gradients of the whole batch, so the losses may compare across it.
Axes by the legend in `class_jax.models`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from class_jax.errors import InputError, nearest
from class_jax.models import scoring
from class_jax.models.class_model import ClassModel, Encoded
from class_jax.models.layers import over_batch
from class_jax.models.packing import Slots
from class_jax.objectives import losses
from class_jax.objectives.batch import Batch, Stage

Metrics = dict[str, jax.Array]

_SIDES = ("both", "english", "parallel")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Settings of the losses.

    Attributes:
      alpha: weight of the retriever's losses (8 in the paper).
      mean_over_question: end-to-end training divides multi-vector scores by the question's number of tokens (the
        public code does, the paper's formula does not say so).
      micro_batches: pieces in which a batch is encoded and read; must divide the questions of a device.
      score_chunk: passages compared at a time in stage 1, or None for all at once.
      align: include L_align in stage 1 (the ablation "-L_align" turns it off).
      queries: the questions that stage 1 learns from: "both", or only "parallel" or "english" ones (the ablations
        "-q^En" and "-q^L"), which leaves nothing to align. The teacher is asked in English in any case.
      read_pairs: pairs of a stage-1 batch that are read, the first ones of the (shuffled) batch; None reads all, as
        in the paper. The retriever learns from all pairs, at a fraction of the cost; 0 suits parallel questions that
        come without answers.
      attention_from_scores: where the teacher scores but does not read (BM25), take the softmax of its scores over a
        question's own passages for its P_ca. An untrained reader attends to all passages alike, and end-to-end
        training would teach the retriever the same.
    """

    alpha: float = 8.0
    mean_over_question: bool = True
    micro_batches: int = 1
    score_chunk: int | None = None
    align: bool = True
    queries: str = "both"
    read_pairs: int | None = None
    attention_from_scores: bool = False

    def __post_init__(self):
        if self.queries not in _SIDES:
            problem, remedy = f"unknown value {self.queries!r}", nearest(str(self.queries), _SIDES)
            raise InputError(problem, key="ObjectiveConfig.queries", remedy=remedy)


def in_micro_batches(function: Callable, count: int, key: jax.Array | None, *arrays: Any) -> Any:
    """Maps `function(key, *pieces)` over `count` pieces of the leading axis, recomputing each piece backward.

    Every result must have the pieces' leading axis. With one piece this is a plain call.
    """
    if count == 1:
        return function(key, *arrays)

    # Piece m takes every count-th row, so that an axis sharded over devices stays sharded within each piece.
    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    def glue(x: jax.Array) -> jax.Array:
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    keys = None if key is None else jax.random.split(key, count)

    def body(_: None, piece: tuple) -> tuple:
        piece_key, *piece_arrays = piece
        made = function(piece_key, *jax.tree.map(over_batch, piece_arrays))
        return None, jax.tree.map(over_batch, made)

    body = jax.checkpoint(body, prevent_cse=False)
    return jax.tree.map(glue, jax.lax.scan(body, None, (keys, *jax.tree.map(cut, arrays)))[1])


def encode_batch(
    model: ClassModel, batch: Batch, config: ObjectiveConfig, key: jax.Array | None
) -> tuple[Encoded, Encoded]:
    """Encodes each question [B or 2B, Q] once and each passage [B, N, P] once."""
    question_key, passage_key = (None, None) if key is None else jax.random.split(key)
    questions = model.encode_questions(batch.question_ids, batch.question_lengths, question_key)
    slots, _ = _slots(batch, config)

    def encode(key: jax.Array | None, ids: jax.Array, lengths: jax.Array) -> Encoded:
        flat = model.encode_passages(ids.reshape(-1, ids.shape[-1]), lengths.reshape(-1), key, slots)
        return jax.tree.map(lambda x: x.reshape(*lengths.shape, *x.shape[1:]), flat)

    arrays = (batch.passage_ids, batch.passage_lengths)
    return questions, in_micro_batches(encode, config.micro_batches, passage_key, *arrays)


def _slots(batch: Batch, config: ObjectiveConfig) -> tuple[Slots | None, Slots | None]:
    """Slots for the tokens of a micro-batch's passages and joint rows; None where the feed does not pack.

    Raises:
      InputError: the batch was made for another number of micro-batches.
    """
    found = batch.token_slots
    if found is None:
        return None, None
    if found.micro_batches != config.micro_batches:
        problem = f"is {config.micro_batches}, but the batch's tokens are counted in {found.micro_batches} pieces"
        raise InputError(problem, key="ObjectiveConfig.micro_batches", remedy="give the feed's packer the same")
    return found.passages, found.rows


@jax.named_scope("teacher")
def add_teacher_targets(teacher: ClassModel, batch: Batch, config: ObjectiveConfig, temperature: float = 1.0) -> Batch:
    """Adds what a teacher that is a model predicts for a stage-1 batch (section 3.1); no gradient reaches the teacher.

    Args:
      teacher: the English teacher, which has a vocabulary of its own.
      batch: a batch with the texts in that vocabulary (`Batch.read_by_teacher`).
      config: of the losses; the teacher is cut into the same micro-batches and reads the same pairs as the student.
      temperature: divides the scores.

    Returns:
      The batch with teacher_scores [B, B * N]; and, where R > 0 pairs are read, teacher_attention [R, N], its P_ca.
    """
    own = batch.read_by_teacher()
    questions, passages = encode_batch(teacher, own, config, None)
    scores, attention = scoring.score_all(questions, passages, chunk=config.score_chunk) / temperature, None
    reading = _pairs_read(config, len(passages.lengths))
    _, row_slots = _slots(own, config)
    if reading:

        def attend(_: None, questions: Encoded, passages: Encoded) -> jax.Array:
            start = jnp.zeros((len(passages.lengths), 1), jnp.int32)  # P_ca is of the first output position
            return teacher.decode(teacher.read(questions, passages, slots=row_slots), start)[1]

        read = jax.tree.map(lambda x: x[:reading], (questions, passages))
        attention = in_micro_batches(attend, config.micro_batches, None, *read)
    scores, attention = jax.lax.stop_gradient((scores, attention))
    return batch._replace(teacher_scores=scores, teacher_attention=attention)


def end_to_end(
    model: ClassModel, batch: Batch, config: ObjectiveConfig, key: jax.Array | None
) -> tuple[jax.Array, Metrics]:
    """L_e2e = L_reader + alpha * KL(P_ca || P_be) (section 3.2.2): stage 2 and all fine-tuning.

    Args:
      model: the model.
      batch: B questions with their answers and passages.
      config: the losses' settings.
      key: dropout key, or None to leave dropout out.

    Returns:
      The loss, scalar, and its parts (and each question's loss, [B]).
    """
    encode_key, read_key = (None, None) if key is None else jax.random.split(key)
    questions, passages = encode_batch(model, batch, config, encode_key)
    scores = scoring.score_own(questions, passages, mean=config.mean_over_question)
    _, row_slots = _slots(batch, config)

    def read(key: jax.Array | None, questions: Encoded, passages: Encoded, ids: jax.Array, lengths: jax.Array) -> tuple:
        memory_key, decode_key = (None, None) if key is None else jax.random.split(key)
        logits, attention = model.decode(model.read(questions, passages, memory_key, row_slots), ids, decode_key)
        return losses.token_cross_entropy(logits, ids, lengths), attention

    arrays = (questions, passages, batch.answer_ids, batch.answer_lengths)
    reader, attention = in_micro_batches(read, config.micro_batches, read_key, *arrays)
    retriever = losses.reader_retriever_divergence(attention, scores)
    per_question = reader + config.alpha * retriever
    loss = per_question.mean()
    return loss, {"reader": reader.mean(), "retriever": retriever.mean(), "per_question": per_question}


def stage1(
    model: ClassModel, batch: Batch, config: ObjectiveConfig, key: jax.Array | None
) -> tuple[jax.Array, Metrics]:
    """L_stage1: distillation from the English teacher on parallel questions (section 3.1).

    alpha * [KL(T || S_en) + KL(T || S_L) + KL(stop(S_en) || S_L)], scores over all passages of the global batch;
    + token-mean cross-entropy of the 2B readings; + KL(stop(P_ans en) || P_ans L) of the B pairs; and, where the
    teacher reads too, + KL(teacher's P_ca || P_ca) of the 2B readings.

    Args:
      model: the student.
      batch: B pairs of questions with their passages and teacher_scores; optionally teacher_attention.
      config: the losses' settings.
      key: dropout key, or None.

    Returns:
      The loss, scalar, and its parts (and each pair's reading loss, [B]).
    """
    encode_key, read_key = (None, None) if key is None else jax.random.split(key)
    B = batch.passage_ids.shape[0]
    batch = _learnt_from(batch, config.queries)
    S = len(batch.question_ids) // B
    questions, passages = encode_batch(model, batch, config, encode_key)
    scores = scoring.score_all(questions, passages, chunk=config.score_chunk)
    taught, aligned = _retriever_losses(batch.teacher_scores, scores, config)
    loss = config.alpha * (taught + aligned)
    metrics = {"distillation": taught, "alignment": aligned, "per_question": jnp.full(B, loss)}
    reading = _pairs_read(config, B)
    _, row_slots = _slots(batch, config)
    if not reading:
        return loss, metrics

    def read(key: jax.Array | None, pair: Any, passages: Encoded, teacher_attention: jax.Array | None) -> tuple:
        """Reads micro-batches of b pairs: leaves of `pair` are [b, S, ...]; a pair's readings stay together."""
        questions, ids, lengths = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pair)
        passages = jax.tree.map(lambda x: jnp.repeat(x, S, axis=0), passages)
        memory_key, decode_key = (None, None) if key is None else jax.random.split(key)
        logits, attention = model.decode(model.read(questions, passages, memory_key, row_slots), ids, decode_key)
        reader = losses.token_cross_entropy(logits, ids, lengths).reshape(-1, S).mean(axis=1)
        alignment = jnp.zeros_like(reader)
        if S == 2 and config.align:
            english, parallel = logits.reshape(-1, S, *logits.shape[1:]).swapaxes(0, 1)
            alignment = losses.answer_alignment(english, parallel, lengths[::S])
        if teacher_attention is None:
            return reader, alignment, jnp.zeros_like(reader)
        target = jnp.repeat(teacher_attention, S, axis=0)
        return reader, alignment, losses.attention_distillation(target, attention).reshape(-1, S).mean(axis=1)

    pair = jax.tree.map(
        lambda x: jnp.stack([x[side * B : side * B + reading] for side in range(S)], axis=1),
        (questions, batch.answer_ids, batch.answer_lengths),
    )
    attention = batch.teacher_attention
    if attention is None and config.attention_from_scores:
        own = batch.teacher_scores.reshape(B, B, -1)[jnp.arange(B), jnp.arange(B)]
        attention = jax.nn.softmax(own, axis=-1)
    passages, attention = jax.tree.map(lambda x: x[:reading], (passages, attention))
    reader, answers, attention = in_micro_batches(read, config.micro_batches, read_key, pair, passages, attention)
    metrics |= {"reader": reader.mean(), "answer_alignment": answers.mean(), "attention": attention.mean()}
    # A loss that is not finite is traced to the pairs whose reading is not, where the retriever's is.
    metrics["per_question"] = jnp.full(B, loss).at[:reading].add(reader)
    return loss + (reader + answers + attention).mean(), metrics


def _learnt_from(batch: Batch, queries: str) -> Batch:
    """A stage-1 batch with the questions and answers of one half, unless `queries` is "both"."""
    if queries == "both":
        return batch
    B = batch.passage_ids.shape[0]
    half = slice(B) if queries == "english" else slice(B, None)
    names = ("question_ids", "question_lengths", "answer_ids", "answer_lengths")
    return batch._replace(**{name: getattr(batch, name)[half] for name in names})


def _retriever_losses(teacher: jax.Array, scores: jax.Array, config: ObjectiveConfig) -> tuple[jax.Array, jax.Array]:
    """L_KL and the retriever's half of L_align, from the scores [B, M] or [2B, M] of the questions learnt from."""
    B = len(teacher)
    if config.queries != "both":
        target = jax.lax.stop_gradient(jax.nn.softmax(teacher, axis=-1))
        taught = losses.kl_divergence(target, jax.nn.log_softmax(scores, axis=-1)).mean()
        return taught, jnp.zeros_like(taught)
    taught, aligned = losses.distillation(teacher, scores[:B], scores[B:])
    return taught, aligned if config.align else jnp.zeros_like(aligned)


def _pairs_read(config: ObjectiveConfig, pairs: int) -> int:
    """How many of a stage-1 batch's pairs are read."""
    return pairs if config.read_pairs is None else min(config.read_pairs, pairs)


OBJECTIVES = {Stage.END_TO_END: end_to_end, Stage.STAGE1: stage1}
