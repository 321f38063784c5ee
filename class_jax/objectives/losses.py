# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The losses of CLASS as pure functions (paper, sections 3.1 and 3.2.2).

Every divergence is KL(target || student) as in the public code; the paper writes the arguments the other way round.
Axes by the legend in `class_jax.models`; all inputs and results are float32.
"""

import jax
import jax.numpy as jnp


def kl_divergence(target: jax.Array, log_student: jax.Array) -> jax.Array:
    """KL(target || student) over the last axis: probabilities and log-probabilities [..., X] -> [...]."""
    log_target = jnp.log(jnp.where(target > 0, target, 1.0))
    return jnp.where(target > 0, target * (log_target - log_student), 0.0).sum(axis=-1)


def token_cross_entropy(logits: jax.Array, answer_ids: jax.Array, answer_lengths: jax.Array) -> jax.Array:
    """Cross-entropy averaged over each answer's tokens (L_reader): [B, A, V], [B, A], [B] -> [B].

    An answer of length 0 (a question that comes without one) costs 0.
    """
    picked = jnp.take_along_axis(logits, answer_ids[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return _token_mean(losses, answer_lengths)


def reader_retriever_divergence(passage_attention: jax.Array, scores: jax.Array) -> jax.Array:
    """KL(P_ca || softmax(scores)) for each question: [B, N], [B, N] -> [B] (section 3.2.2, L_KL).

    P_ca is a target: no gradient flows into the decoder.
    """
    return kl_divergence(jax.lax.stop_gradient(passage_attention), jax.nn.log_softmax(scores, axis=-1))


def distillation(
    teacher_scores: jax.Array, english_scores: jax.Array, parallel_scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Retriever losses of stage 1 (section 3.1, L_KL and the first half of L_align), all [B, M].

    Args:
      teacher_scores: of the English teacher for the English questions, over all passages of the global batch.
      english_scores, parallel_scores: of the student, for the English questions and for the parallel ones.

    Returns:
      L_KL = KL(T || S_en) + KL(T || S_L) and L_align = KL(stop(S_en) || S_L), each averaged over questions.
    """
    teacher = jax.lax.stop_gradient(jax.nn.softmax(teacher_scores, axis=-1))
    english = jax.nn.log_softmax(english_scores, axis=-1)
    parallel = jax.nn.log_softmax(parallel_scores, axis=-1)
    taught = kl_divergence(teacher, english) + kl_divergence(teacher, parallel)
    aligned = kl_divergence(jax.lax.stop_gradient(jnp.exp(english)), parallel)
    return taught.mean(), aligned.mean()


def answer_alignment(english_logits: jax.Array, parallel_logits: jax.Array, answer_lengths: jax.Array) -> jax.Array:
    """KL(stop(P_ans of the English reading) || P_ans of the parallel one), averaged over tokens: [B] (L_align).

    Logits are [B, A, V]; both readings are of the same answer.
    """
    target = jax.lax.stop_gradient(jax.nn.softmax(english_logits, axis=-1))
    return _token_mean(kl_divergence(target, jax.nn.log_softmax(parallel_logits, axis=-1)), answer_lengths)


def attention_distillation(teacher_attention: jax.Array, passage_attention: jax.Array) -> jax.Array:
    """KL(teacher's P_ca || student's P_ca): [B, N], [B, N] -> [B]. In the public code, not in the paper."""
    # A probability can underflow to 0 in float32; its logarithm must stay finite.
    log_student = jnp.log(jnp.maximum(passage_attention, 1e-30))
    return kl_divergence(jax.lax.stop_gradient(teacher_attention), log_student)


def _token_mean(values: jax.Array, lengths: jax.Array) -> jax.Array:
    """Mean of [B, A] over the first `lengths` [B] positions; 0 where there are none."""
    mask = jnp.arange(values.shape[1]) < lengths[:, None]
    return jnp.where(mask, values, 0.0).sum(axis=1) / jnp.maximum(lengths, 1)
