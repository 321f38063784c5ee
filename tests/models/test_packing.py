# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Packed tokens: the same losses and gradients as padded ones, in as many slots as the fullest cell takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_feed
from tiny_feed import make_feed, parallel_table

from class_jax.errors import InputError
from class_jax.models import ModelConfig, merge, model_graph, param_shapes
from class_jax.models.packing import Slots, pack, packing, unpack
from class_jax.objectives.batch import Batch, Stage, TokenSlots
from class_jax.objectives.objectives import OBJECTIVES, ObjectiveConfig, add_teacher_targets, in_micro_batches
from class_jax.training import feed as feeds
from class_jax.training.token_slots import Packer, round_up

pytestmark = pytest.mark.core

# Largest difference over largest value of an array; packing changes the order of float32 sums, no more.
TOLERANCE = 2e-5
CONFIG = ModelConfig(
    vocab_size=32,
    d_model=12,
    d_kv=4,
    d_ff=16,
    num_layers=4,
    num_decoder_layers=1,
    num_heads=2,
    retriever_head=1,
    dropout_rate=0.0,
)
TEACHER = dataclasses.replace(CONFIG, vocab_size=24)
B, N, Q, P, A = 4, 3, 5, 9, 3
world = tiny_feed.world  # a fixture
QUICK = {"xla_backend_optimization_level": 0}


def random_params(config, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), param_shapes(config))


PARAMS, TEACHER_PARAMS = random_params(CONFIG, 1), random_params(TEACHER, 2)


def make_batch(objective, seed):
    """Random lengths, in arrays that are longer still; padding is filled with tokens, which nothing may look at."""
    rng = np.random.default_rng(seed)

    def texts(name, leading, size, vocabulary):
        shape = {
            "ids": rng.integers(2, vocabulary, (*leading, size + 3)),
            "lengths": rng.integers(1, size + 1, leading),
        }
        return {f"{name}_{part}": x.astype(np.int32) for part, x in shape.items()}

    readings = 2 * B if objective == "stage1" else B
    batch = (
        texts("question", (readings,), Q, 32) | texts("passage", (B, N), P, 32) | texts("answer", (readings,), A, 32)
    )
    if objective == "stage1":
        batch["answer_lengths"] = np.tile(batch["answer_lengths"][:B], 2)
        batch |= texts("teacher_question", (B,), Q - 1, 24) | texts("teacher_passage", (B, N), P + 2, 24)
    return Batch(**batch)


def packed(objective, batch, packer):
    """The batch with the slots that the feed would find."""
    found = packer(batch.question_lengths, batch.passage_lengths, stage=Stage(objective))
    batch = batch._replace(token_slots=found)
    if objective == "stage1":
        lengths = batch.teacher_question_lengths, batch.teacher_passage_lengths
        batch = batch._replace(teacher_token_slots=packer(*lengths, stage=Stage.STAGE1))
    return batch


def run(objective, batch, gradients=False, **settings):
    """The loss, the teacher's targets included; and gradients if wanted."""
    losses = ObjectiveConfig(**settings)

    def loss(params, teacher_params, batch):
        if objective == "stage1":
            batch = add_teacher_targets(merge(model_graph(TEACHER), teacher_params), batch, losses)
        return OBJECTIVES[objective](merge(model_graph(CONFIG), params), batch, losses, None)[0]

    function = jax.value_and_grad(loss) if gradients else loss
    return jax.jit(function, compiler_options=QUICK)(PARAMS, TEACHER_PARAMS, batch)


def assert_same(actual, expected):
    def check(path, actual, expected):
        difference = np.abs(np.asarray(actual) - expected).max() / max(np.abs(expected).max(), 1e-6)
        assert difference < TOLERANCE, f"{jax.tree_util.keystr(path)} differs by {difference:.1e}"

    jax.tree_util.tree_map_with_path(check, actual, expected)


def test_packed_tokens_follow_each_other_and_return_to_their_rows():
    rng = np.random.default_rng(0)
    lengths = np.array([3, 0, 2, 1, 4, 4])
    x = rng.normal(size=(6, 4, 2))
    where = packing(jnp.asarray(lengths), 4, Slots(2, 10))
    made = pack(jnp.asarray(x), where)
    for group, rows in enumerate(np.split(np.arange(6), 2)):
        tokens = np.concatenate([x[row, : lengths[row]] for row in rows])
        np.testing.assert_allclose(made[group], np.pad(tokens, ((0, 10 - len(tokens)), (0, 0))), rtol=1e-6)
    back = np.where(np.arange(4)[:, None] < lengths[:, None, None], x, 0)
    np.testing.assert_allclose(unpack(made, where), back, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_packing_are_those_of_the_sums(seed):
    """Both are linear: the gradient of <f(x), y> is f's transpose of y, here from f's own matrix."""
    rng = np.random.default_rng(seed)
    where = packing(jnp.asarray(rng.integers(0, 4, 6)), 3, Slots(2, 9))
    for function, shape in ((pack, (6, 3, 1)), (unpack, (2, 9, 1))):
        size = int(np.prod(shape))
        columns = [function(jnp.asarray(unit.reshape(shape)), where).ravel() for unit in np.eye(size, dtype=np.float32)]
        y, transpose = jax.vjp(lambda x, f=function: f(x, where), jnp.zeros(shape))
        weights = rng.normal(size=y.shape).astype(np.float32)
        # Of unpacking, what left-over slots hold goes nowhere: there packing's gradient is 0, as the sums' is.
        np.testing.assert_allclose(transpose(weights)[0].ravel(), np.stack(columns) @ weights.ravel(), rtol=1e-6)


@pytest.fixture(scope="module", params=["stage1", "end_to_end"])
def padded(request):
    batch = make_batch(request.param, 0)
    return request.param, batch, run(request.param, batch, gradients=True)


@pytest.mark.parametrize(("micro_batches", "ways"), [(1, 4), (2, 2)])
def test_packed_losses_and_gradients_are_the_padded_ones(padded, micro_batches, ways):
    objective, batch, expected = padded
    batch = packed(objective, batch, Packer(ways, micro_batches))
    slots, readings = batch.token_slots, batch.question_ids.shape[0]
    assert slots.passages.size * ways * micro_batches < batch.passage_ids.size  # something is saved
    assert slots.rows.size * ways * micro_batches < readings * N * (Q + P + 6)
    assert_same(run(objective, batch, gradients=True, micro_batches=micro_batches), expected)


@pytest.mark.parametrize("settings", [{"queries": "parallel"}, {"read_pairs": 2}])
def test_packed_losses_where_stage1_reads_less(settings):
    batch = make_batch("stage1", 2)
    found = run("stage1", packed("stage1", batch, Packer(2, 2, **settings)), micro_batches=2, **settings)
    assert_same(found, run("stage1", batch, **settings))


@pytest.mark.parametrize("short", ["passages", "rows"])
def test_tokens_that_do_not_fit_make_the_loss_not_a_number(short):
    """The fullest cell has exactly as many tokens as slots: one less is one too few."""
    batch = packed("end_to_end", make_batch("end_to_end", 0), Packer(2, 1))
    slots = batch.token_slots
    groups, size = getattr(slots, short)
    assert round_up(size) == size < 64  # not rounded up
    few = dataclasses.replace(slots, **{short: Slots(groups, size - 1)})
    assert np.isfinite(run("end_to_end", batch))
    assert np.isnan(run("end_to_end", batch._replace(token_slots=few)))


def test_slots_for_other_micro_batches_are_refused():
    batch = packed("end_to_end", make_batch("end_to_end", 0), Packer(1, 2))
    with pytest.raises(InputError, match=r"micro_batches: is 4, .* counted in 2 pieces"):
        run("end_to_end", batch, micro_batches=4)


@pytest.mark.parametrize("ways", [1, 2, 4])
def test_slots_hold_the_fullest_cell_of_the_step_s_own_pieces(ways):
    rng = np.random.default_rng(ways)
    questions, passages = rng.integers(1, 30, 16), rng.integers(1, 200, (16, 5))
    found = Packer(ways, 4)(questions, passages, stage=Stage.END_TO_END)
    cells = []

    def collect(_, tokens):  # in the order in which devices hold a piece
        jax.debug.callback(lambda piece: cells.extend(np.asarray(piece).reshape(ways, -1).sum(axis=1)), tokens)
        return tokens

    for tokens, slots in ((passages.sum(1), found.passages), (5 * questions + passages.sum(1), found.rows)):
        cells.clear()
        jax.block_until_ready(in_micro_batches(collect, 4, None, jnp.asarray(tokens)))
        jax.effects_barrier()
        assert len(cells) == 4 * ways
        assert slots == Slots(ways, round_up(int(max(cells))))


def test_a_piece_that_the_devices_do_not_divide_is_one_group():
    questions, passages = np.full(8, 3), np.full((8, 2), 10)
    found = Packer(4, 1, read_pairs=6)(np.tile(questions, 2), passages, stage=Stage.STAGE1)
    assert found == TokenSlots(Slots(4, 40), Slots(1, 6 * 2 * (2 * 3 + 2 * 10)), 1)
    with pytest.raises(InputError, match="micro_batches: 3 pieces of 8 questions"):
        Packer(1, 3)(questions, passages, stage=Stage.END_TO_END)


def test_sizes_are_few_and_waste_little():
    sizes = np.arange(1, 200_000)
    rounded = np.array([round_up(int(size)) for size in sizes])
    assert (rounded >= sizes).all() and (np.diff(rounded) >= 0).all()
    assert (rounded / sizes).max() < 1 + 1 / 32
    assert len(set(rounded[100_000:])) < 50


class TestFeed:
    """The slots that the feed finds are those of its batches."""

    @pytest.mark.parametrize("stage", Stage)
    def test_slots_are_those_of_the_whole_batch_on_every_host(self, world, stage):
        # Noise lengthens questions: a host must know what it did to the others'.
        settings = {"stage": stage, "noise": (np.arange(3, 40), 2.0), "packer": Packer(4, 2)}
        settings |= {"table": parallel_table(world), "question_buckets": (50,)}
        if stage is Stage.STAGE1:
            settings["teacher_texts"] = feeds.TeacherTexts(world[0], world[1])
        hosts = [make_feed(world, **settings, host_index=i, host_count=2) for i in range(2)]
        padded = make_feed(world, **settings | {"packer": None})
        for step in range(3):
            parts = [host.batch(step) for host in hosts]
            questions, passages = (
                np.concatenate([getattr(part, f"{name}_lengths") for part in parts]) for name in ("question", "passage")
            )
            expected = Packer(4, 2)(questions, passages, stage=stage)
            assert [part.token_slots for part in parts] == [expected, expected]
            assert padded.batch(step).token_slots is None
            if stage is Stage.STAGE1:
                lengths = padded.batch(step).teacher_question_lengths, passages  # both vocabularies are one
                expected = Packer(4, 2)(*lengths, stage=Stage.STAGE1)
                assert [part.teacher_token_slots for part in parts] == [expected, expected]

    def test_few_shapes_come_in_an_epoch(self, world):
        """Random lists and lengths from 3 to 90 words; a batch as uneven as this has more sizes than a large one."""
        feed = make_feed(world, batch_size=32, packer=Packer(1, 2))
        found = [feed.batch(step).token_slots for step in range(40)]
        assert 1 < len(set(found)) <= 20
        assert len({slots.passages for slots in found}) <= 8
