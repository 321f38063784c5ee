# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The encoder's properties: sides that don't see each other, padding, joint rows, positions; against a slow model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from class_jax.errors import InputError
from class_jax.models import (
    Encoded,
    ModelConfig,
    create,
    inference,
    merge,
    model_graph,
    param_axes,
    param_shapes,
    scoring,
    split,
)
from class_jax.models import layers as nn
from class_jax.models.class_model import join
from class_jax.models.layers import relative_buckets

pytestmark = pytest.mark.core

# Largest difference over largest value. Padding changes the order of float32 sums, no more.
PADDING_TOLERANCE = 5e-6
SLOW_TOLERANCE = 2e-5
# bfloat16 keeps 8 bits, and errors grow through the layers.
BFLOAT16_TOLERANCE = 0.1

CONFIG = ModelConfig(
    vocab_size=64,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=4,
    num_decoder_layers=2,
    num_heads=2,
    retriever_head=1,
    dropout_rate=0.0,
)
# Compiling takes most of the time here, and less of it without optimisations.
QUICK = {"xla_backend_optimization_level": 0}
B, N, Q, P, A = 2, 2, 5, 9, 3


def difference(actual, expected):
    """Largest difference over largest value."""
    assert actual.shape == expected.shape
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


def parameters(config):
    """Random ones, norms included: a norm whose scale is 1 hides that it is left out."""
    params = jax.jit(lambda: split(create(config))[1], compiler_options=QUICK)()
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return structure.unflatten([x + 0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


@pytest.fixture(scope="module", params=["multi_vector", "dense"])
def setup(request):
    config = dataclasses.replace(CONFIG, retriever=request.param)
    return config, parameters(config)


def make_batch(question_size=Q, passage_size=P, answer_size=A):
    """The same texts in arrays of any size: padding is filled with random tokens, which nothing may look at.

    Questions hold tokens 2 to 31, passages 32 to 63.
    """
    rng = np.random.default_rng(0)
    texts = {
        "question": ([rng.integers(2, 32, n) for n in (Q, 3)], (B,), question_size),
        "passage": ([rng.integers(32, 64, n) for n in (4, P, 1, 7)], (B, N), passage_size),
        "answer": ([rng.integers(2, 64, n) for n in (A, 2)], (B,), answer_size),
    }
    batch = {}
    for name, (rows, shape, size) in texts.items():
        ids = rng.integers(2, 64, (len(rows), size))
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        batch[f"{name}_ids"] = jnp.asarray(ids.reshape(*shape, size))
        batch[f"{name}_lengths"] = jnp.asarray([len(row) for row in rows]).reshape(shape)
    return batch


def encode(model, batch):
    questions = model.encode_questions(batch["question_ids"], batch["question_lengths"])
    ids = batch["passage_ids"]
    flat = model.encode_passages(ids.reshape(-1, ids.shape[-1]), batch["passage_lengths"].reshape(-1))
    return questions, jax.tree.map(lambda x: x.reshape(B, N, *x.shape[1:]), flat)


def run(config, params, batch):
    def function(params, batch):
        model = merge(model_graph(config), params)
        questions, passages = encode(model, batch)
        memory = model.read(questions, passages)
        scores = scoring.score_all(questions, passages), scoring.score_own(questions, passages)
        return questions, passages, memory, scores, model.decode(memory, batch["answer_ids"])

    return jax.jit(function, compiler_options=QUICK)(params, batch)


def test_a_side_never_influences_the_other(setup):
    config, params = setup
    batch = make_batch()

    def total_of(encoded):
        where = encoded.mask[..., None] if config.retriever == "multi_vector" else True
        return encoded.vectors.sum(where=where)

    def gradients(params):
        def total(embedding, which):
            changed = params | {"embed": {"embedding": embedding}}
            model = merge(model_graph(config), changed)
            questions, passages = encode(model, batch)
            memory = model.read(questions, passages)
            read = jnp.square(memory.states).sum(where=memory.mask[..., None])
            return (total_of(questions), total_of(passages), read)[which]

        return [jax.grad(total)(params["embed"]["embedding"], which) for which in range(3)]

    of_questions, of_passages, of_reading = (
        np.abs(g).max(axis=1) for g in jax.jit(gradients, compiler_options=QUICK)(params)
    )
    asked = np.unique(batch["question_ids"][np.arange(Q) < batch["question_lengths"][:, None]])
    given = np.unique(batch["passage_ids"][np.arange(P) < batch["passage_lengths"][..., None]])
    assert (of_questions[given] == 0).all() and (of_questions[asked] > 0).all()
    assert (of_passages[asked] == 0).all() and (of_passages[given] > 0).all()
    assert (of_reading[asked] > 0).all() and (of_reading[given] > 0).all()


def test_changing_a_token_changes_only_its_own_text(setup):
    config, params = setup
    batch = make_batch()
    function = jax.jit(lambda batch: encode(merge(model_graph(config), params), batch), compiler_options=QUICK)
    questions, passages = function(batch)
    changed = function(batch | {"question_ids": batch["question_ids"].at[0, 1].set(33)})
    np.testing.assert_array_equal(changed[1].vectors, passages.vectors)
    np.testing.assert_array_equal(changed[0].vectors[1], questions.vectors[1])
    assert (np.abs(changed[0].vectors[0] - questions.vectors[0]).max(axis=-1) > 0).all()
    changed = function(batch | {"passage_ids": batch["passage_ids"].at[0, 0, 1].set(3)})
    np.testing.assert_array_equal(changed[0].vectors, questions.vectors)
    np.testing.assert_array_equal(changed[1].vectors[0, 1], passages.vectors[0, 1])
    assert np.abs(changed[1].vectors[0, 0] - passages.vectors[0, 0]).max() > 0


def test_padding_never_matters(setup):
    config, params = setup
    batch, wide = make_batch(), make_batch(Q + 3, P + 4, A + 2)
    small, large = run(config, params, batch), run(config, params, wide)
    for side in (0, 1):
        actual, expected = large[side].vectors, small[side].vectors
        if config.retriever == "multi_vector":
            actual, expected = actual[large[side].mask], expected[small[side].mask]
        assert difference(actual, expected) < PADDING_TOLERANCE
    assert difference(large[2].states[large[2].mask], small[2].states[small[2].mask]) < PADDING_TOLERANCE
    for actual, expected in zip(large[3], small[3], strict=True):
        assert difference(actual, expected) < PADDING_TOLERANCE
    answered = np.arange(A) < batch["answer_lengths"][:, None]
    assert difference(large[4][0][:, :A][answered], small[4][0][answered]) < PADDING_TOLERANCE
    assert difference(large[4][1], small[4][1]) < PADDING_TOLERANCE
    np.testing.assert_allclose(small[4][1].sum(-1), 1, rtol=1e-5)


def test_join_lays_out_rows():
    question_lengths, passage_lengths = np.array([2, 3]), np.array([[4, 1], [2, 3]])
    questions = np.arange(2 * 3).reshape(2, 3, 1) + 1
    passages = np.arange(2 * 2 * 4).reshape(2, 2, 4, 1) + 100
    states, mask = join(
        Encoded(jnp.asarray(questions), jnp.asarray(question_lengths), None),
        Encoded(jnp.asarray(passages), jnp.asarray(passage_lengths), None),
    )
    assert states.shape == (2, 2, 7, 1) and mask.shape == (2, 2, 7)
    for b in range(2):
        for n in range(2):
            row = [*questions[b, : question_lengths[b], 0], *passages[b, n, : passage_lengths[b, n], 0]]
            assert np.asarray(states)[b, n, : len(row), 0].tolist() == row
            assert np.asarray(mask)[b, n].tolist() == [True] * len(row) + [False] * (7 - len(row))


def slow_bucket(distance, bidirectional, buckets=32, max_distance=128):
    """In whole numbers: a far bucket begins where (d / exact)^far reaches (max / exact)^i."""
    start = 0
    if bidirectional:
        buckets //= 2
        start = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return start + distance
    far = buckets - exact
    passed = sum(distance**far * exact**i >= exact**far * max_distance**i for i in range(1, far))
    return start + exact + passed


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_buckets(bidirectional):
    size = 260
    actual = relative_buckets(size, size + 1, bidirectional=bidirectional, buckets=32, max_distance=128)
    expected = {d: slow_bucket(d, bidirectional) for d in range(-size, size + 1)}
    assert actual.tolist() == [[expected[s - t] for s in range(size + 1)] for t in range(size)]


def test_long_passages_use_every_bucket():
    """All but that of distance 0 among the positive distances, which T5 has and never uses."""
    size = 150
    ids = jnp.asarray(np.random.default_rng(0).integers(2, 64, (1, size)))
    params = parameters(CONFIG)

    def total(bias):
        changed = params | {"encoder": params["encoder"] | {"relative_bias": {"embedding": bias}}}
        encoded = merge(model_graph(CONFIG), changed).encode_passages(ids, jnp.array([size]))
        return jnp.square(encoded.vectors).sum()

    gradient = jax.jit(jax.grad(total), compiler_options=QUICK)(params["encoder"]["relative_bias"]["embedding"])
    used = np.abs(gradient).max(axis=1) > 0
    assert np.flatnonzero(~used).tolist() == [CONFIG.relative_attention_num_buckets // 2]


def slow_norm(x, scale, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def slow_layer(x, layer, bias, allowed):
    """One encoder layer over one row [T, D], head by head; `allowed` [T, T] says who sees whom."""
    attention, mlp = layer["attention"], layer["mlp"]
    normed = slow_norm(x, attention["norm"]["scale"])
    for head in range(CONFIG.num_heads):
        q, k, v = (normed @ attention[name]["kernel"][:, head] for name in "qkv")
        weights = np.where(allowed, np.exp(q @ k.T + bias[..., head]), 0)
        x = x + weights / weights.sum(-1, keepdims=True) @ v @ attention["o"]["kernel"][head]
    normed = slow_norm(x, mlp["norm"]["scale"])
    gate = normed @ mlp["wi_0"]["kernel"]
    gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    return x + gate * (normed @ mlp["wi_1"]["kernel"]) @ mlp["wo"]["kernel"]


def slow_row(params, question, passage):
    """The reference's way: the joint row through every layer, with a block mask in the lower ones. Float64."""
    encoder = jax.tree.map(lambda x: np.asarray(x, np.float64), params["encoder"])
    x = np.asarray(params["embed"]["embedding"], np.float64)[np.concatenate([question, passage])]
    from_question = np.arange(len(x)) < len(question)
    same_side = from_question[:, None] == from_question[None]
    bias = np.array(
        [
            [encoder["relative_bias"]["embedding"][slow_bucket(s - t, True)] for s in range(len(x))]
            for t in range(len(x))
        ]
    )
    for stack, count, allowed in (
        ("retriever_layers", CONFIG.retriever_layer, same_side),
        ("reader_layers", CONFIG.num_reader_layers, np.ones_like(same_side)),
    ):
        for i in range(count):
            x = slow_layer(x, jax.tree.map(lambda leaf, i=i: leaf[i], encoder[stack]), bias, allowed)
    return slow_norm(x, encoder["norm"]["scale"])


def test_encoding_once_equals_the_joint_row_with_a_block_mask():
    params, batch = parameters(CONFIG), make_batch()
    memory = run(CONFIG, params, batch)[2]
    for b in range(B):
        question = batch["question_ids"][b, : batch["question_lengths"][b]]
        for n in range(N):
            passage = batch["passage_ids"][b, n, : batch["passage_lengths"][b, n]]
            actual = memory.states[b, n][memory.mask[b, n]]
            assert difference(actual, slow_row(params, question, passage)) < SLOW_TOLERANCE


def test_few_targets_attend_to_a_memory_as_many_do():
    """Few go through the keys' and values' kernels, many beside the memory's keys and values: the same sums."""
    attention = nn.Attention(CONFIG, rngs=nnx.Rngs(0))
    targets, memory = (jax.random.normal(jax.random.key(seed), (B, size, 16)) for seed, size in ((1, 40), (2, 30)))
    bias = jnp.where(jnp.arange(30) < jnp.array([[30], [11]]), 0.0, nn.MASKED)[:, None, None]

    @jax.jit
    def attend(x):
        return attention.cross_attend(x, memory, bias, None)

    def keys_made(x):
        return any(out.aval.shape == (B, 30, 12) for e in jax.make_jaxpr(attend)(x).jaxpr.eqns for out in _outputs(e))

    few = targets[:, :5]
    assert keys_made(targets) and not keys_made(few)
    for short, long in zip(attend(few), attend(targets), strict=True):
        cut = long[:, :5] if long.ndim == 3 else long[:, :, :5]
        assert difference(short, cut) < PADDING_TOLERANCE


def _outputs(equation):
    inner = [e for jaxpr in core.jaxprs_in_params(equation.params) for e in jaxpr.eqns]
    return [*equation.outvars, *(out for e in inner for out in _outputs(e))]


def test_bfloat16_is_near_float32(setup):
    config, params = setup
    batch = make_batch()
    exact = run(config, params, batch)
    rough = run(dataclasses.replace(config, dtype="bfloat16"), params, batch)
    assert rough[0].states.dtype == jnp.bfloat16
    pairs = [(r.vectors, e.vectors) for r, e in zip(rough[:2], exact[:2], strict=True)]
    pairs += [*zip(rough[3], exact[3], strict=True), *zip(rough[4], exact[4], strict=True)]
    for actual, expected in pairs:
        assert actual.dtype == jnp.float32
        assert 0 < difference(actual, expected) < BFLOAT16_TOLERANCE


def test_retrieval_needs_only_the_lower_half(setup):
    config, params = setup
    batch = make_batch()
    kept = inference.retriever_params(params)
    assert kept["decoder"]["norm"]["scale"].shape == () == kept["head"]["kernel"].shape
    encoder = inference.encoder(config)
    questions, passages = run(config, params, batch)[:2]
    vectors, mask = encoder.questions(kept, batch["question_ids"], batch["question_lengths"])
    np.testing.assert_allclose(vectors, questions.vectors, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mask, questions.mask)
    ids = batch["passage_ids"].reshape(B * N, P)
    vectors, mask = encoder.passages(kept, ids, batch["passage_lengths"].reshape(-1))
    np.testing.assert_allclose(vectors, passages.vectors.reshape(vectors.shape), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mask, passages.mask.reshape(mask.shape))


def test_split_merge_and_shapes_agree(setup):
    config, params = setup
    graph, again = split(merge(model_graph(config), params))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), params, again))
    assert graph == model_graph(config)
    shapes, axes = param_shapes(config), param_axes(config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
    ranks = jax.tree.map(len, axes, is_leaf=lambda x: isinstance(x, tuple))
    assert ranks == jax.tree.map(lambda x: len(x.shape), shapes)
    assert axes["encoder"]["reader_layers"]["attention"]["q"]["kernel"] == ("layers", "embed", "heads", "kv")


def test_a_symmetric_retriever_begins_by_matching_equal_tokens():
    config = dataclasses.replace(CONFIG, symmetric_retriever=True, initializer_factor=0.3, d_model=64, d_kv=32)
    params = jax.jit(lambda: split(create(config))[1], compiler_options=QUICK)()
    attention = params["encoder"]["reader_layers"]["attention"]
    q, k = (np.asarray(attention[name]["kernel"]) for name in ("q", "k"))
    np.testing.assert_allclose(k[0, :, 1], q[0, :, 1] * 32**0.5, rtol=1e-6)
    for other in (k[0, :, 0], k[1, :, 1]):  # the other head, and the layer that only reads
        assert np.abs(np.corrcoef(other.ravel(), q[0, :, 1].ravel())[0, 1]) < 0.5
    graph = model_graph(config)
    ids = jnp.arange(2, 8)[None]

    def encode(params, ids):
        model = merge(graph, params)
        lengths = jnp.full(1, ids.shape[1])
        return model.encode_questions(ids, lengths).vectors[0], model.encode_passages(ids, lengths).vectors[0]

    questions, passages = jax.jit(encode, compiler_options=QUICK)(params, ids)
    assert (np.asarray(questions @ passages.T).argmax(axis=1) == np.arange(6)).all()


def test_fingerprint_is_of_the_parameters():
    for free in ({"dtype": "bfloat16"}, {"remat": "full"}, {"dropout_rate": 0.5}):
        assert dataclasses.replace(CONFIG, **free).fingerprint == CONFIG.fingerprint
    for fixed in ({"retriever": "dense"}, {"retriever_head": 0}, {"num_heads": 3}, {"retriever_layer": 1}):
        assert dataclasses.replace(CONFIG, **fixed).fingerprint != CONFIG.fingerprint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"retriever": "multivector"}, "did you mean 'multi_vector'?"),
        ({"remat": "ful"}, "did you mean 'full'?"),
        ({"dtype": "float16"}, "ModelConfig.dtype"),
        ({"retriever_layer": 4}, "choose 1 to 3"),
        ({"retriever_layer": 0}, "choose 1 to 3"),
        ({"retriever_head": 2}, "there are 2 heads"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(InputError) as error:
        dataclasses.replace(CONFIG, **change)
    assert named in str(error.value)
