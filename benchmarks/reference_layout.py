# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The layout of the public PyTorch code, in JAX, to count what it computes: never used in training.

Every (question, passage) pair is one row of `ROW` tokens through all encoder layers, with a block mask in the lower
half; a question is thus encoded once per passage, and in stage 1 a passage once per language. Stage 1 encodes every row
once more without gradient (as far as layer B, whose projections are compared), takes the gradient of the scores, and
hands it to a surrogate loss. Weights, layers, losses and batches are those of `class_jax`, so both sides' losses agree.
"""

import jax
import jax.numpy as jnp

from class_jax.models import layers as nn
from class_jax.models.class_model import Memory, length_mask
from class_jax.models.scoring import PADDED
from class_jax.objectives import losses

ROW = 250


def joint_ids(batch, prefix="", row=ROW):
    """Rows of question, passage and padding: ids [R, N, T], question lengths [R, N], lengths [R, N].

    Stage 1's R is twice the batch's questions: the passages are repeated for the second language.
    """
    batch = batch.read_by_teacher() if prefix else batch
    ids, q, passages, p = batch[:4]
    q = q[:, None]
    repeats = len(ids) // len(passages)
    passages, p = jnp.concatenate([passages] * repeats), jnp.concatenate([p] * repeats)
    place = jnp.arange(row)
    from_question = jnp.take_along_axis(ids, jnp.minimum(place, ids.shape[1] - 1)[None], axis=1)[:, None]
    where = jnp.clip(place - q, 0, passages.shape[-1] - 1)[:, None]  # [R, 1, T]
    from_passage = jnp.take_along_axis(passages, where, axis=2)
    joined = jnp.where(place < q[..., None], from_question, from_passage)
    lengths = q + p
    return jnp.where(place < lengths[..., None], joined, 0), jnp.broadcast_to(q, p.shape), lengths


def encode_rows(model, ids, question_lengths, lengths, *, only_retriever=False):
    """Rows [R, T] through the encoder: states [R, T, D] (None where `only_retriever`), query and passage vectors.

    With `only_retriever` it ends after layer B, as the reference does: one layer more than the vectors need.
    """
    T, config = ids.shape[1], model.config
    encoder = model.encoder
    place = jnp.arange(T)
    question, filled = length_mask(question_lengths, T), length_mask(lengths, T)
    passage = filled & ~question
    same = (question[:, :, None] & question[:, None]) | (~question[:, :, None] & passage[:, None])
    bias = encoder.relative_bias(len(place), len(place))
    block, pad = (jnp.where(mask, 0.0, nn.MASKED)[:, None] for mask in (same, filled[:, None]))

    def run(layers, x, mask_bias):
        return nn.scan_layers(layers, lambda layer, x, key: layer(x, bias, mask_bias, key), x, None, remat=config.remat)

    x = run(encoder.retriever_layers, model._embed(ids), block)
    vectors = tuple(model._vectors(x, lengths, side) for side in ("query", "passage"))
    if only_retriever:
        first = jax.tree.map(lambda leaf: leaf[:1], encoder.reader_layers)
        run(first, x, pad)
        return None, vectors, question, passage
    return encoder.norm(run(encoder.reader_layers, x, pad)), vectors, question, passage


def decode(model, memory, answers):
    """Decoding with a key and a value for each of the memory's tokens: logits and P_ca, as `CLASS.decode`."""
    B, N, T, D = memory.states.shape
    A = answers.shape[1]
    causal = jnp.where(jnp.tril(jnp.ones((A, A), bool)), 0.0, nn.MASKED)
    bias = model.decoder.relative_bias(A, A) + causal
    states = memory.states.reshape(B, N * T, D)
    memory_bias = jnp.where(memory.mask.reshape(B, N * T), 0.0, nn.MASKED)[:, None, None]

    def apply(layer, carry, _):
        x = layer.self_attention.self_attend(carry[0], bias, None, None)
        cross = layer.cross_attention
        k, v = cross.keys_values(states)
        weights = nn.attention_probabilities(cross.queries(cross.norm(x)), k, None, memory_bias)
        x = layer.mlp(x + cross.output(nn.mix(weights, v)), None)
        return x, weights[:, :, 0].mean(axis=1).reshape(B, N, T).sum(axis=-1)

    inputs = jnp.pad(answers, ((0, 0), (1, 0)))[:, :A]
    carry = model._embed(inputs), jnp.zeros((B, N), jnp.float32)
    x, attention = nn.scan_layers(model.decoder.layers, apply, carry, None, remat=model.config.remat)
    return model.logits(model.decoder.norm(x)), attention


def read(model, batch, prefix="", *, only_retriever=False):
    """Encodes and reads every question: logits, P_ca, query vectors [R, T, K], passage vectors [R*N, T, K], masks."""
    ids, question_lengths, lengths = joint_ids(batch, prefix)
    R, N, T = ids.shape
    flat = (x.reshape(R * N, *x.shape[2:]) for x in (ids, question_lengths, lengths))
    states, (queries, passages), question, passage = encode_rows(model, *flat, only_retriever=only_retriever)
    queries = queries.reshape(R, N, T, -1).mean(axis=1)
    vectors = queries, passages, question.reshape(R, N, T)[:, 0], passage
    if only_retriever:
        return vectors
    # The teacher's own tokens of the answer have no part in its first position, the only one used.
    answers = jnp.zeros_like(batch.answer_ids[:R]) if prefix else batch.answer_ids
    memory = Memory(states.reshape(R, N, T, -1), length_mask(lengths, T))
    return *decode(model, memory, answers), vectors


def scores(queries, passages, query_mask, passage_mask, *, mean):
    """MaxSim of every question [B, T, K] with every passage [M, T, K]: [B, M]."""
    match = jnp.einsum("bqk,mpk->bmqp", queries, passages, preferred_element_type=jnp.float32)
    best = jnp.where(passage_mask[None, :, None], match, PADDED).max(axis=-1)
    total = jnp.where(query_mask[:, None], best, 0.0).sum(axis=-1)
    return total / query_mask.sum(axis=-1)[:, None] if mean else total


def end_to_end(model, batch, alpha=8.0):
    """The loss of the second stage, scalar. The reference scores a question only against its own passages."""
    logits, attention, (queries, passages, query_mask, passage_mask) = read(model, batch)
    B, N = batch.passage_lengths.shape
    own = [x.reshape(B, N, *x.shape[1:]) for x in (passages, passage_mask)]
    found = jax.vmap(lambda *one: scores(one[0][None], one[1], one[2][None], one[3], mean=True)[0])(
        queries, own[0], query_mask, own[1]
    )
    reader = losses.token_cross_entropy(logits, batch.answer_ids, batch.answer_lengths)
    return (reader + alpha * losses.reader_retriever_divergence(attention, found)).mean()


def teach(teacher, batch):
    """The teacher's scores [B, B*N] and P_ca [B, N]: it reads whole answers, though only the first position counts."""
    _, attention, vectors = read(teacher, batch, "teacher_")
    return scores(*vectors, mean=False), attention


def stage1(model, batch, teacher_scores, teacher_attention, alpha=8.0):
    """The first stage: (what is differentiated, the loss itself).

    Args:
      model: the student, whose parameters the gradient is of.
      batch: as for `class_jax.objectives.objectives.stage1`.
      teacher_scores, teacher_attention: of `teach`.
      alpha: weight of the retriever's losses.
    """
    B = len(batch.passage_lengths)

    def retriever_loss(queries, passages, query_mask, passage_mask):
        M = len(passages) // 2
        english = scores(queries[:B], passages[:M], query_mask[:B], passage_mask[:M], mean=False)
        parallel = scores(queries[B:], passages[M:], query_mask[B:], passage_mask[M:], mean=False)
        return alpha * sum(losses.distillation(teacher_scores, english, parallel))

    first = jax.lax.stop_gradient(read(model, batch, only_retriever=True))
    retriever, pulls = jax.value_and_grad(retriever_loss, argnums=(0, 1))(*first)
    logits, attention, vectors = read(model, batch)
    surrogate = sum((x * jax.lax.stop_gradient(pull)).sum() for x, pull in zip(vectors, pulls, strict=False))
    english, parallel = jnp.split(logits, 2)
    reading = losses.token_cross_entropy(logits, batch.answer_ids, batch.answer_lengths).mean()
    reading += losses.answer_alignment(english, parallel, batch.answer_lengths[:B]).mean()
    target = jnp.concatenate([teacher_attention] * 2)
    reading += losses.attention_distillation(target, attention).mean()
    return reading + surrogate, reading + jax.lax.stop_gradient(retriever)
