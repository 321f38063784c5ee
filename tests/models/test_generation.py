# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Greedy decoding with caches against the teacher-forced decoder, one token at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.models import Memory, ModelConfig, create, generation, inference, merge, model_graph, split

pytestmark = pytest.mark.core

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
QUICK = {"xla_backend_optimization_level": 0}
CONFIG = ModelConfig(
    vocab_size=24,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=2,
    retriever_head=1,
)
B, N, T, A = 4, 2, 5, 8
NEVER = -1  # an end-of-sequence token that no answer holds


@pytest.fixture(scope="module")
def params():
    params = jax.jit(lambda: split(create(CONFIG, seed=1))[1], compiler_options=QUICK)()
    # A larger head than at the start of training: sharper distributions, other tokens at each position.
    return params | {"head": {"kernel": 4 * params["head"]["kernel"]}}


@pytest.fixture(scope="module")
def memory():
    states = jax.random.normal(jax.random.key(0), (B, N, T, CONFIG.d_model))
    return Memory(states, np.arange(T) < np.array([[5, 3], [1, 5], [2, 2], [4, 5]])[..., None])


@pytest.fixture(scope="module")
def decode(params):
    function = lambda memory, ids: merge(model_graph(CONFIG), params).decode(memory, ids)  # noqa: E731
    return jax.jit(function, compiler_options=QUICK)


@pytest.fixture(scope="module")
def greedy(params):
    def function(memory, eos_id):
        model = merge(model_graph(CONFIG), params)
        return generation.decode(model, generation.project(model, memory), A, eos_id=eos_id)

    return jax.jit(function, compiler_options=QUICK)


@pytest.fixture(scope="module")
def stepwise(decode, memory):
    """The most probable token at each position, given those before: [B, A], and its log-probability."""
    ids, gained = np.zeros((B, A), np.int32), np.zeros((B, A))
    for position in range(A):
        log_probabilities = jax.nn.log_softmax(decode(memory, jnp.asarray(ids))[0][:, position])
        ids[:, position] = log_probabilities.argmax(-1)
        gained[:, position] = log_probabilities.max(-1)
    return ids, gained


def ended(ids, gained, eos_id):
    """Answers cut after the first `eos_id`: ids, lengths, sums of log-probabilities."""
    lengths = np.array([list(row).index(eos_id) + 1 if eos_id in row else A for row in ids])
    kept = np.arange(A) < lengths[:, None]
    return np.where(kept, ids, 0), lengths, np.where(kept, gained, 0).sum(-1)


def test_answers_that_never_end(greedy, stepwise, memory, decode):
    ids, gained = stepwise
    assert len(np.unique(ids)) > 4
    answers = greedy(memory, NEVER)
    np.testing.assert_array_equal(answers.ids, ids)
    np.testing.assert_array_equal(answers.lengths, [A] * B)
    np.testing.assert_allclose(answers.log_probabilities, gained.sum(-1), **TOLERANCE)
    np.testing.assert_allclose(answers.passage_attention, decode(memory, answers.ids)[1], **TOLERANCE)
    np.testing.assert_allclose(answers.passage_attention.sum(-1), 1, **TOLERANCE)


def test_answers_end_with_the_end_of_sequence(greedy, stepwise, memory, decode):
    # Whichever token ends some answers early and not others takes the part of the end of sequence.
    for eos_id in np.unique(stepwise[0]):
        ids, lengths, total = ended(*stepwise, eos_id)
        if len(set(lengths)) > 1 and lengths.min() > 1:
            break
    assert 1 < lengths.min() < lengths.max()
    answers = greedy(memory, eos_id)
    np.testing.assert_array_equal(answers.ids, ids)
    np.testing.assert_array_equal(answers.lengths, lengths)
    np.testing.assert_allclose(answers.log_probabilities, total, **TOLERANCE)
    # And by the teacher-forced decoder, from the answers.
    log_probabilities = jax.nn.log_softmax(decode(memory, answers.ids)[0])
    picked = np.take_along_axis(np.asarray(log_probabilities), np.asarray(answers.ids)[..., None], -1)[..., 0]
    forced = np.where(np.arange(A) < lengths[:, None], picked, 0).sum(-1)
    np.testing.assert_allclose(answers.log_probabilities, forced, **TOLERANCE)


def test_padding_of_the_memory_never_matters(greedy, memory):
    garbage = jnp.where(memory.mask[..., None], memory.states, 100.0)
    for actual, expected in zip(greedy(Memory(garbage, memory.mask), NEVER), greedy(memory, NEVER), strict=True):
        np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_answerer_is_encode_read_and_greedy(params):
    rng = np.random.default_rng(0)
    question_ids, question_lengths = inference.pad_rows([rng.integers(2, 24, n) for n in (4, 2)], 4)
    passage_ids, passage_lengths = inference.pad_rows([rng.integers(2, 24, n) for n in (6, 3, 1, 6)], 6)
    batch = question_ids, question_lengths, passage_ids.reshape(2, N, 6), passage_lengths.reshape(2, N)
    actual = inference.decoder(CONFIG, A)(params, inference.reader(CONFIG)(params, *batch))

    def one_question(question_ids, question_length, passage_ids, passage_lengths):
        model = merge(model_graph(CONFIG), params)
        questions = model.encode_questions(question_ids[None], question_length[None])
        passages = model.encode_passages(passage_ids, passage_lengths)
        memory = model.read(questions, jax.tree.map(lambda x: x[None], passages))
        return generation.decode(model, generation.project(model, memory), A)

    for b in range(2):  # by itself, and without padding of the question
        own = slice(N * b, N * (b + 1))
        arrays = question_ids[b, : question_lengths[b]], question_lengths[b], passage_ids[own], passage_lengths[own]
        expected = jax.jit(one_question, compiler_options=QUICK)(*arrays)
        np.testing.assert_array_equal(actual.ids[b], expected.ids[0])
        np.testing.assert_allclose(actual.log_probabilities[b], expected.log_probabilities[0], **TOLERANCE)
        np.testing.assert_allclose(actual.passage_attention[b], expected.passage_attention[0], **TOLERANCE)


def test_pad_rows_cuts_and_pads():
    ids, lengths = inference.pad_rows([np.array([3, 4]), np.array([5, 6, 7, 8])], 3)
    assert ids.tolist() == [[3, 4, 0], [5, 6, 7]] and lengths.tolist() == [2, 3]


@pytest.mark.parametrize(("length", "size"), [(1, 4), (4, 4), (5, 9), (10, 9)])
def test_round_up(length, size):
    assert inference.bucket_of(length, [9, 4]) == size
