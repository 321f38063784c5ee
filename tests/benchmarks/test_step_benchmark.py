# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""benchmarks/step.py: the reference's layout computes our losses, and what is counted and compared is right."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from class_jax.models import ModelConfig, merge, model_graph
from class_jax.objectives.objectives import OBJECTIVES, ObjectiveConfig, add_teacher_targets

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import records  # noqa: E402
import reference_layout  # noqa: E402
import step  # noqa: E402
import step_count  # noqa: E402
import step_time  # noqa: E402

CONFIG = ModelConfig(
    vocab_size=96,
    d_model=16,
    d_kv=8,
    d_ff=24,
    num_layers=4,
    num_decoder_layers=2,
    num_heads=2,
    retriever_head=1,
    dropout_rate=0.0,
)
TEACHER = dataclasses.replace(CONFIG, vocab_size=64, num_decoder_layers=1)
SHAPE = {"B": 2, "N": 3, "Q": 5, "P": 9, "A": 3, "Q bucket": 8, "P bucket": 16, "A bucket": 4}
SHAPE |= {"vocab_size": 96, "teacher_vocab_size": 64}


def a_batch(objective):
    """Uneven lengths: a mask that is off by one changes the losses."""
    batch = step_time.random_batch({**SHAPE, "objective": objective}, 0)
    rng = np.random.default_rng(3)
    changed = {}
    for name, lengths in batch._asdict().items():
        if name.endswith("_lengths") and "answer" not in name and lengths is not None:
            changed[name] = rng.integers(2, lengths.flat[0] + 1, lengths.shape).astype(np.int32)
    return batch._replace(**changed)


@pytest.fixture(scope="module")
def weights():
    return step_time.random_params(CONFIG, 1), step_time.random_params(TEACHER, 2)


def our_loss(objective, weights, batch):
    if objective == "stage1":
        teacher = merge(model_graph(TEACHER), weights[1])
        batch = add_teacher_targets(teacher, batch, ObjectiveConfig())
    model = merge(model_graph(CONFIG), weights[0])
    return OBJECTIVES[objective](model, batch, ObjectiveConfig(), None)[0]


@pytest.fixture(scope="module", params=["end_to_end", "stage1"])
def ours(request, weights):
    batch = a_batch(request.param)
    return request.param, batch, float(jax.jit(lambda w, b: our_loss(request.param, w, b))(weights, batch))


def test_reference_layout_in_jax_has_our_loss(ours, weights):
    objective, batch, expected = ours

    def loss(weights, batch):
        model, teacher = merge(model_graph(CONFIG), weights[0]), merge(model_graph(TEACHER), weights[1])
        if objective == "end_to_end":
            return reference_layout.end_to_end(model, batch)
        return reference_layout.stage1(model, batch, *reference_layout.teach(teacher, batch))[1]

    assert float(jax.jit(loss)(weights, batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.torch
def test_reference_layout_in_torch_has_our_loss(ours, weights):
    import torch_reference

    objective, batch, expected = ours
    teacher = (TEACHER, weights[1]) if objective == "stage1" else (None, None)
    prepare, one = torch_reference.make_step(CONFIG, weights[0], 32, 0.0, *teacher)
    tensors = prepare(batch)
    assert one(tensors) == pytest.approx(expected, rel=1e-4)
    assert one(tensors) == pytest.approx(expected, rel=1e-4)  # with a learning rate of 0 nothing has moved


@pytest.mark.torch
def test_torch_stage1_gradient_is_that_of_the_whole_loss(weights):
    """The surrogate hands the scores' gradient on: the retriever's kernels learn as in our one backward pass."""
    import torch
    import torch_reference

    batch = a_batch("stage1")
    gradient = jax.jit(jax.grad(lambda *both: our_loss("stage1", both, batch)))(*weights)
    model = torch_reference.load(torch_reference.Reference(CONFIG, 32), weights[0])
    teacher = torch_reference.load(torch_reference.Reference(TEACHER, 32), weights[1])
    rows = [torch_reference.joint_rows(batch, 32, prefix) for prefix in ("", "teacher_")]
    answers, lengths = (
        torch.from_numpy(getattr(batch, f"answer_{name}").astype(np.int64)) for name in ("ids", "lengths")
    )
    torch_reference.stage1(model, teacher, (*rows, answers, lengths))
    expected = np.asarray(gradient["encoder"]["retriever_layers"]["mlp"]["wo"]["kernel"][0])
    np.testing.assert_allclose(model.encoder[0].mlp.wo.weight.grad.T.numpy(), expected, rtol=2e-3, atol=1e-5)


def test_counts_the_reference_s_layers():
    """Joint rows of 250: every token passes every layer's kernels, forward once and backward twice."""
    shapes = step_count.batch_shapes("end_to_end", 2, 3, lengths={"Q": 8, "P": 16, "A": 1})
    deep = dataclasses.replace(CONFIG, num_layers=6, retriever_layer=2)
    found = [step_count.count_reference(config, "end_to_end", shapes, TEACHER).model for config in (CONFIG, deep)]
    D, F, HK, T = 16, 24, 16, 250
    layer = (
        2 * 2 * 3 * T * (4 * D * HK + 3 * D * F + 2 * T * HK)
    )  # rows x tokens x (projections, feed-forward, attention)
    # Gradients of position bias and norms are products with ones.
    assert found[1] - found[0] == pytest.approx(2 * 3 * layer, rel=0.02)


def test_extra_pass_of_stage1_is_counted():
    """Without gradient, the reference encodes every row again as far as layer B, that layer included."""
    shapes = step_count.batch_shapes("stage1", 2, 3, lengths={"Q": 8, "P": 16, "A": 1})
    with_extra = step_count.count_reference(CONFIG, "stage1", shapes, TEACHER).model
    D, F, HK, T, rows = 16, 24, 16, 250, 2 * 2 * 3
    layer = 2 * rows * T * (4 * D * HK + 3 * D * F + 2 * T * HK)
    student = step_count.count_reference(
        CONFIG, "end_to_end", step_count.batch_shapes("end_to_end", 4, 3, lengths={"Q": 8, "P": 16, "A": 1}), TEACHER
    ).model
    # The teacher: half of the student's rows, forward only. Scores are the rest.
    assert student + 3 * layer + 4 * layer / 2 < with_extra < (student + 3 * layer + 4 * layer / 2) * 1.2


def test_full_padding_meets_the_bars_at_full_size():
    config = dataclasses.replace(step_count.TEACHER, vocab_size=250112)
    found = step_count.compare(config, "end_to_end", [step_count.limits("end_to_end", 64, 100)])
    assert 0.5 < found["ratio"] <= step.COUNT_BARS["end_to_end", "full"]


def test_counts_of_batches_are_averaged_by_how_often_they_come():
    lengths = {"Q": 4, "P": 8, "A": 2}, {"Q": 8, "P": 16, "A": 2}
    short, long = (step_count.batch_shapes("end_to_end", 2, 3, lengths=one) for one in lengths)
    alone = [step_count.count_ours(CONFIG, "end_to_end", one, teacher=TEACHER).model for one in (short, long)]
    mixed = step_count.compare(CONFIG, "end_to_end", [(short, 2), (long, 2), (short, 2)], TEACHER)
    assert mixed["ours"] == pytest.approx((2 * alone[0] + alone[1]) / 3)
    assert [row["batches"] for row in mixed["batches"]] == [2, 1]


def test_compares_two_files(tmp_path, capsys):
    rows = [{"objective": "stage1", "sides": {"class_jax": {"seconds": 2.0, "tokens_per_second": 10.0}}}]
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps({"time": rows}))
    rows[0]["sides"]["class_jax"]["seconds"] = 1.0
    files[1].write_text(json.dumps({"time": rows}))
    records.compare(*files)
    assert "0.500" in capsys.readouterr().out


def test_times_our_step_and_prints_mfu():
    shape = {**SHAPE, "objective": "end_to_end", "mesh": {"data": 1, "fsdp": 1, "tensor": 1}}
    shape |= {"micro_batches": 2, "score_chunk": None}
    run = step_time.jax_side(CONFIG, TEACHER, shape)
    found = {"class_jax": [run(seed) for seed in (0, 0)]}
    assert found["class_jax"][0][1] == found["class_jax"][1][1]  # the learning rate is 0
    row = step_time.summary(CONFIG, TEACHER, shape, found, peak=1e9)["sides"]["class_jax"]
    assert row["mfu"] == pytest.approx(row["model_flops"] / row["seconds"] / 1e9)
    assert row["hfu"] > row["mfu"]  # a micro-batch is computed again
