# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Whole-batch objectives: micro-batches, recomputation, padding, dropout and settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.models import ModelConfig, create, merge, model_graph, split
from class_jax.models.class_model import ClassModel
from class_jax.objectives.batch import Batch, Stage
from class_jax.objectives.objectives import OBJECTIVES, ObjectiveConfig, add_teacher_targets, in_micro_batches

pytestmark = pytest.mark.core

# Largest difference over largest value of an array: float32 sums in another order.
TOLERANCE = 1e-5
PADDING_TOLERANCE = 1e-6
QUICK = {"xla_backend_optimization_level": 0}
CONFIG = ModelConfig(
    vocab_size=32,
    d_model=12,
    d_kv=4,
    d_ff=16,
    num_layers=4,
    num_decoder_layers=2,
    num_heads=2,
    retriever_head=1,
    dropout_rate=0.0,
)
B, N, Q, P, A = 4, 2, 4, 6, 3


def make_batch(kind, extra=0):
    """Question b of a pair's two languages differs, its answer does too. `extra` columns of padding."""
    rng = np.random.default_rng(0)
    rows = 2 * B if kind == "stage1" else B

    def texts(shape, longest):
        ids, lengths = rng.integers(2, 32, (*shape, longest)), rng.integers(1, longest + 1, shape)
        ids = np.where(np.arange(longest) < lengths[..., None], ids, 0)
        return jnp.asarray(np.pad(ids, [(0, 0)] * len(shape) + [(0, extra)])), jnp.asarray(lengths)

    batch = Batch(*texts((rows,), Q), *texts((B, N), P), *texts((rows,), A))
    if kind == "end_to_end":
        return batch
    return batch._replace(
        answer_lengths=jnp.tile(batch.answer_lengths[:B], 2),
        teacher_scores=jnp.asarray(rng.normal(size=(B, B * N)), jnp.float32),
        teacher_attention=jax.nn.softmax(jnp.asarray(rng.normal(size=(B, N)), jnp.float32)),
    )


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: split(create(CONFIG))[1], compiler_options=QUICK)()


def run(kind, params, batch=None, key=None, gradients=False, model=None, **settings):
    """Loss and metrics, and gradients if wanted; `model` holds changes of the model's configuration."""
    graph = model_graph(dataclasses.replace(CONFIG, **(model or {})))
    settings = ObjectiveConfig(**settings)

    def loss(params, batch, key):
        return OBJECTIVES[kind](merge(graph, params), batch, settings, key)

    function = jax.value_and_grad(loss, has_aux=True) if gradients else loss
    return jax.jit(function, compiler_options=QUICK)(params, make_batch(kind) if batch is None else batch, key)


@pytest.fixture(scope="module", params=["end_to_end", "stage1"])
def whole(request, params):
    """An objective's name, loss, metrics and gradients on the whole batch at once."""
    (loss, metrics), gradients = run(request.param, params, gradients=True)
    return request.param, loss, metrics, gradients


def assert_same(actual, expected):
    def check(path, a, e):
        difference = np.abs(np.asarray(a) - e).max() / np.abs(e).max()
        assert difference < TOLERANCE, f"{jax.tree_util.keystr(path)} differs by {difference:.1e}"

    jax.tree_util.tree_map_with_path(check, actual, expected)


def test_micro_batches_equal_the_whole(whole, params):
    kind, loss, metrics, gradients = whole
    (pieces_loss, pieces_metrics), pieces = run(kind, params, gradients=True, micro_batches=2, score_chunk=3)
    assert_same((pieces_loss, pieces_metrics, pieces), (loss, metrics, gradients))


# "dots" and "full" recompute layers by different rules.
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputation_changes_nothing(whole, params, remat):
    kind, loss, metrics, gradients = whole
    if kind == "stage1":
        pytest.skip("its layers are those of end_to_end")
    (again, again_metrics), again_gradients = run(kind, params, gradients=True, model={"remat": remat})
    assert_same((again, again_metrics, again_gradients), (loss, metrics, gradients))


def test_padding_never_matters(whole, params):
    kind, loss, metrics, _ = whole
    wide_loss, wide_metrics = run(kind, params, make_batch(kind, extra=3))
    assert wide_loss == pytest.approx(float(loss), rel=PADDING_TOLERANCE)
    for name, value in metrics.items():
        np.testing.assert_allclose(wide_metrics[name], value, rtol=1e-5, atol=PADDING_TOLERANCE, err_msg=name)


def test_the_loss_is_the_sum_of_its_parts(whole):
    kind, loss, metrics, _ = whole
    parts = {name: float(value) for name, value in metrics.items() if name != "per_question"}
    assert all(value > 0 for value in parts.values())
    if kind == "end_to_end":
        expected = parts["reader"] + 8 * parts["retriever"]
        assert float(metrics["per_question"].mean()) == pytest.approx(float(loss), rel=1e-5)
    else:
        expected = 8 * (parts["distillation"] + parts["alignment"])
        expected += parts["reader"] + parts["answer_alignment"] + parts["attention"]
        retriever = 8 * (parts["distillation"] + parts["alignment"])
        assert float(metrics["per_question"].mean()) == pytest.approx(retriever + parts["reader"], rel=1e-5)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_dropout_follows_its_key(whole, params):
    kind, exact, _, _ = whole
    graph = model_graph(dataclasses.replace(CONFIG, dropout_rate=0.3))
    settings = ObjectiveConfig(micro_batches=2)
    batch = make_batch(kind)
    function = jax.jit(
        lambda key: OBJECTIVES[kind](merge(graph, params), batch, settings, key)[0], compiler_options=QUICK
    )
    losses = [float(function(jax.random.key(seed))) for seed in (0, 0, 1, 2)]
    assert losses[0] == losses[1]
    assert len({float(exact), *losses}) == 4


def test_micro_batches_keep_their_order_and_have_keys_of_their_own():
    def function(key, x):
        return 2 * x, jnp.broadcast_to(jax.random.uniform(key), x.shape)

    rows = jnp.arange(6)
    doubled, drawn = in_micro_batches(function, 3, jax.random.key(0), rows)
    np.testing.assert_array_equal(doubled, 2 * rows)
    assert len(np.unique(drawn)) == 3


def test_stage1_without_alignment_or_reading(params):
    _, full = run("stage1", params)
    loss, metrics = run("stage1", params, align=False)
    assert float(metrics["alignment"]) == 0 == float(metrics["answer_alignment"])
    expected = 8 * full["distillation"] + full["reader"] + full["attention"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    (loss, metrics), gradients = run("stage1", params, read_pairs=0, gradients=True)
    assert float(loss) == pytest.approx(float(8 * (full["distillation"] + full["alignment"])), rel=1e-5)
    assert "reader" not in metrics
    # Only the retriever learns, and the first reader layer's queries and keys, which it uses.
    assert all((leaf == 0).all() for leaf in jax.tree.leaves((gradients["decoder"], gradients["head"])))
    assert (gradients["encoder"]["reader_layers"]["attention"]["q"]["kernel"][0, :, CONFIG.retriever_head] != 0).any()


def test_stage1_may_read_only_the_first_pairs(params):
    batch = make_batch("stage1")
    half = len(batch.passage_ids) // 2
    rows = np.r_[:half, 2 * half : 3 * half]
    part = jax.tree.map(lambda x: x[rows] if len(x) == 4 * half else x[:half], batch)
    part = part._replace(teacher_scores=part.teacher_scores[:, : part.passage_ids.shape[0] * part.passage_ids.shape[1]])
    _, all_pairs = run("stage1", params)
    loss, metrics = run("stage1", params, read_pairs=half)
    _, first_pairs = run("stage1", params, part)
    for name in ("distillation", "alignment"):
        assert float(metrics[name]) == pytest.approx(float(all_pairs[name]), rel=1e-5)
    for name in ("reader", "answer_alignment", "attention"):
        assert float(metrics[name]) == pytest.approx(float(first_pairs[name]), rel=1e-4)
    assert np.isfinite(float(loss))


def test_stage1_with_a_teacher_that_does_not_read(params):
    loss, metrics = run("stage1", params, make_batch("stage1")._replace(teacher_attention=None))
    _, full = run("stage1", params)
    assert float(metrics["attention"]) == 0 < float(full["attention"])
    expected = 8 * (full["distillation"] + full["alignment"]) + full["reader"] + full["answer_alignment"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_scores_may_replace_the_teachers_attention(params):
    batch = make_batch("stage1")
    pairs, passages = batch.passage_ids.shape[:2]
    own = np.stack([batch.teacher_scores[i, i * passages : (i + 1) * passages] for i in range(pairs)])
    given = batch._replace(teacher_attention=jax.nn.softmax(jnp.asarray(own), axis=-1))
    batch = batch._replace(teacher_attention=None)
    loss, metrics = run("stage1", params, batch, attention_from_scores=True)
    expected, expected_metrics = run("stage1", params, given)
    assert float(metrics["attention"]) == pytest.approx(float(expected_metrics["attention"]), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_stage1_may_learn_from_one_sides_questions(params):
    """The ablations -q^En and -q^L: the two sides' parts make up those of both, though the other side is garbage."""
    _, both = run("stage1", params, align=False)
    parts = {}
    # The pieces of a micro-batch must be those of one side, too.
    for side, pieces in (("english", 1), ("parallel", 2)):
        batch = make_batch("stage1")
        other = slice(B, None) if side == "english" else slice(B)
        garbage = {name: getattr(batch, name).at[other].set(1) for name in ("question_ids", "answer_ids")}
        batch = batch._replace(**garbage)
        loss, parts[side] = run("stage1", params, batch, queries=side, micro_batches=pieces)
        expected = 8 * parts[side]["distillation"] + parts[side]["reader"] + parts[side]["attention"]
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        assert float(parts[side]["alignment"]) == 0 == float(parts[side]["answer_alignment"])
    for name, share in (("distillation", 1), ("reader", 0.5), ("attention", 0.5)):
        english, parallel = (float(parts[side][name]) for side in ("english", "parallel"))
        assert english != parallel
        assert float(both[name]) == pytest.approx(share * (english + parallel), rel=1e-5)
    with pytest.raises(InputError, match="did you mean 'english'"):
        ObjectiveConfig(queries="englsh")


def test_division_by_the_questions_tokens_is_a_setting(params):
    batch = make_batch("end_to_end")._replace(question_lengths=jnp.ones(B, int))
    divided, summed = (run("end_to_end", params, batch, mean_over_question=mean)[0] for mean in (True, False))
    assert float(divided) == pytest.approx(float(summed), rel=1e-6)  # one token: nothing to divide by
    divided, summed = (run("end_to_end", params, mean_over_question=mean)[0] for mean in (True, False))
    assert abs(float(divided) - float(summed)) > 1e-3


@pytest.mark.parametrize(("kind", "parts"), [("end_to_end", ["retriever"]), ("stage1", ["distillation", "alignment"])])
def test_alpha_weighs_only_the_retrievers_losses(params, kind, parts):
    loss, metrics = run(kind, params, alpha=3.0)
    others = {"reader", "answer_alignment", "attention"} & metrics.keys()
    expected = 3 * sum(float(metrics[name]) for name in parts) + sum(float(metrics[name]) for name in others)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", Stage)
def test_each_part_of_the_model_has_a_dropout_key_of_its_own(params, kind, monkeypatch):
    keys = {}
    places = {"encode_questions": 2, "encode_passages": 2, "read": 2, "decode": 2}
    for name, place in places.items():
        method = getattr(ClassModel, name)

        def recorded(self, *given, _name=name, _place=place, _method=method):
            keys[_name] = given[_place] if len(given) > _place else None
            return _method(self, *given)

        monkeypatch.setattr(ClassModel, name, recorded)
    graph = model_graph(dataclasses.replace(CONFIG, dropout_rate=0.3))
    for key in (None, jax.random.key(0)):
        keys.clear()
        jax.eval_shape(
            lambda params, batch, key: OBJECTIVES[kind](merge(graph, params), batch, ObjectiveConfig(), key),
            params,
            make_batch(kind),
            key,
        )
        assert keys.keys() == places.keys()
        if key is None:
            assert set(keys.values()) == {None}
        else:  # traced keys are the same object only where they are the same key
            assert None not in keys.values() and len({id(one) for one in keys.values()}) == len(places)


def test_no_gradient_reaches_the_teacher(params):
    batch = make_batch("stage1")
    texts = {name: getattr(batch, name) for name in ("passage_ids", "passage_lengths")}
    texts |= {name: getattr(batch, name)[:B] for name in ("question_ids", "question_lengths")}
    batch = batch._replace(**{f"teacher_{name}": x for name, x in texts.items()})

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients(params):
        def total(params):
            found = add_teacher_targets(merge(model_graph(CONFIG), params), batch, ObjectiveConfig())
            return found.teacher_scores.sum() + jnp.square(found.teacher_attention).sum()

        return jax.grad(total)(params)

    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients(params)))


def test_stages_are_their_names_and_unknown_ones_are_refused():
    assert [Stage.parse(name) for name in ("stage1", "end_to_end")] == list(Stage) == list(OBJECTIVES)[::-1]
    assert Stage.parse(Stage.STAGE1) is Stage.STAGE1 and f"{Stage.STAGE1}" == "stage1"
    for value in ("stage_1", "Stage1", 1, None):
        with pytest.raises(InputError, match=r"TrainConfig\.objective: .*"):
            Stage.parse(value, "TrainConfig.objective")
    with pytest.raises(InputError, match="'end_to_end'"):
        Stage.parse("end-to-end")
