# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A model as the teacher of stage 1: what it says, in its own vocabulary; and that it is not changed."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import gin_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from reference_fixtures import batch_of, load

from class_jax.checkpoints import huggingface, tensor_files
from class_jax.common.files import read_json
from class_jax.configuration.gin_files import configured
from class_jax.corpus import inputs
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.store import TokenStore, build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.distributed import sharding
from class_jax.errors import InputError
from class_jax.models import ModelConfig, create, inference, merge, model_graph, split
from class_jax.models.class_model import param_shapes
from class_jax.objectives import objectives
from class_jax.objectives.batch import Batch
from class_jax.questions.readers import read_parallel
from class_jax.refresh import refresher
from class_jax.refresh.lists import NO_ROW, PassageLists
from class_jax.training import builder, loop, optimizer, teacher
from class_jax.training.config import RefreshConfig, TrainConfig
from class_jax.training.data import DataConfig, open_data
from class_jax.training.feed import Feed

# Largest difference over largest value: float32 sums in another order.
TOLERANCE = 1e-5
QUICK = {"xla_backend_optimization_level": 0}
SMALL = dict(d_model=16, d_kv=4, d_ff=16, num_layers=2, num_decoder_layers=1, num_heads=2, retriever_head=1)
STUDENT = ModelConfig(vocab_size=tiny_run.PIECES, **SMALL, dropout_rate=0.0)
# Other sizes than the student's, and dropout, which must not be used: a teacher never trains.
TEACHER = dataclasses.replace(STUDENT, vocab_size=400, d_model=24, num_layers=3, dropout_rate=0.5)
TEACHER_PIECES = 384
ALPHA, TEMPERATURE, B, N = 8.0, 0.7, 4, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder of a tiny corpus with parallel questions, and a teacher with a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("world")
    tiny_run.write_data(folder)
    tiny_run.write_vocabulary(folder / "teacher.model", TEACHER_PIECES)
    params = jax.jit(lambda: split(create(TEACHER, 1))[1], compiler_options=QUICK)()
    huggingface.write_safetensors(folder / "teacher", jax.device_get(params), TEACHER)
    return folder


def teacher_config(world, **changes):
    settings = {
        "weights": str(world / "teacher"),
        "model": TEACHER,
        "vocabulary": str(world / "teacher.model"),
        "store": str(world / "teacher_store"),
        "list_length": 6,
        "temperature": TEMPERATURE,
    }
    return teacher.ModelTeacherConfig(**settings | changes)


def data_config(world):
    return DataConfig(
        vocabulary=str(world / "vocabulary.model"),
        store=str(world / "store"),
        passages=str(world / "passages.tsv"),
        questions=read_parallel(world / "parallel.tsv"),
    )


def train_config(world, **changes):
    settings = {
        "model": STUDENT,
        "objective": "stage1",
        "optimizer": optimizer.OptimizerConfig(total_steps=4, learning_rate=1e-2),
        "data": data_config(world),
        "losses": objectives.ObjectiveConfig(alpha=ALPHA),
        "teacher": teacher_config(world),
        "batch_size": B,
        "num_passages": N,
        "question_buckets": (50,),
        "passage_buckets": (200,),
        "answer_buckets": (16,),
        "log_every": 1,
        "tensorboard": False,
        "progress": False,
    }
    return TrainConfig(**settings | changes)


class Opened:
    """What a run opens, and a batch of it."""

    def __init__(self, world):
        self.mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
        self.data = open_data(data_config(world), STUDENT)
        self.teacher = teacher.open_model_teacher(teacher_config(world), data_config(world), self.data, self.mesh)

    def feed(self, lists, **settings):
        return Feed(
            self.data.table,
            self.data.store,
            lists,
            B,
            N,
            0,
            stage="stage1",
            teacher_texts=self.teacher.texts,
            question_buckets=(50,),
            passage_buckets=(200,),
            answer_buckets=(16,),
            **settings,
        )


@pytest.fixture(scope="module")
def opened(world):
    return Opened(world)


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A run of a few steps in this process: its folder, and the teacher's parameters at its start and end."""
    folder = tmp_path_factory.mktemp("run")
    seen = {}

    def opened(*given):
        run = builder.build_run(*given)
        seen["run"], seen["before"] = run, jax.device_get(run.teacher.params)
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "build_run", opened)
        loop.train(str(folder), train_config(world))
    seen["after"] = jax.device_get(seen.pop("run").teacher.params)
    return folder, seen


def english_tokens(vocabulary, data, row):
    return inputs.encode_question(vocabulary, data.table.english(row), "en")


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def kl(target, student):
    return (target * (np.log(target) - np.log(student))).sum(axis=-1)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _says(config, params, question, passages):
    model = merge(model_graph(config), params)
    asked = model.encode_questions(*question)
    found = model.encode_passages(*passages)
    joint = jax.tree.map(lambda x: x[None], found)
    attention = model.decode(model.read(asked, joint), jnp.zeros((1, 1), jnp.int32))[1][0]
    return asked.vectors[0], found.vectors, attention


def says(config, params, question, passages):
    """Vectors of one question and of its passages, and P_ca, of one model."""
    config = dataclasses.replace(config, dropout_rate=0.0)
    given = inference.pad_rows([question], 50), inference.pad_rows(passages, 200)
    asked, found, attention = map(np.asarray, _says(config, params, *given))
    return asked[: len(question)], [x[: len(p)] for x, p in zip(found, passages, strict=True)], attention


def maxsim(question, passage):
    return (question @ passage.T).max(axis=1).sum()


def test_the_loss_is_that_of_the_teachers_scores_and_attention_computed_apart(world, opened, run):
    data, texts = opened.data, opened.teacher.texts
    lists = PassageLists.load(run[0] / "lists" / "lists-000000")
    feed = opened.feed(lists)
    rows = feed.question_rows(0)
    passages = lists.rows[rows][:, :N]
    params = huggingface.to_params(tensor_files.read_tensors(world / "teacher"), TEACHER)
    questions, vectors, attention = [], [], []
    for row, own in zip(rows, passages, strict=True):
        tokens = inputs.encode_passages(texts.vocabulary, [data.store.passage(int(i)) for i in own])
        question, found, attended = says(TEACHER, params, english_tokens(texts.vocabulary, data, int(row)), tokens)
        questions.append(question)
        vectors += found
        attention.append(attended)
    scores = np.array([[maxsim(question, passage) for passage in vectors] for question in questions]) / TEMPERATURE
    attention = np.array(attention)
    assert np.ptp(scores, axis=1).min() > 0.1 and np.ptp(attention, axis=1).min() > 1e-3

    # The student's part, from what is tested elsewhere: its scores, its P_ca and the rest of its loss.
    student = split(create(STUDENT, 0))[1]
    batch = Batch(*feed.batch(0)[:6])
    given = batch._replace(teacher_scores=scores.astype(np.float32), teacher_attention=attention)
    loss, metrics = jax.jit(
        lambda params, batch: objectives.stage1(
            merge(model_graph(STUDENT), params), batch, objectives.ObjectiveConfig(alpha=ALPHA), None
        ),
        compiler_options=QUICK,
    )(student, given)
    [first, *_] = tiny_run.metrics(run[0])
    assert first["loss"] == pytest.approx(float(loss), rel=TOLERANCE)
    for name in ("distillation", "attention", "reader", "alignment", "answer_alignment"):
        assert first[name] == pytest.approx(float(metrics[name]), rel=1e-4), name

    # And the two terms that the teacher is in, by only NumPy.
    both = []
    for side, prefix in (("english", 0), ("parallel", B)):
        tokens = [batch.question_ids[prefix + b][: batch.question_lengths[prefix + b]].tolist() for b in range(B)]
        if side == "english":
            assert tokens == [english_tokens(data.vocabulary, data, int(row)) for row in rows]
        found = [
            says(STUDENT, student, t, [data.store.tokens(int(i)).tolist() for i in own])
            for t, own in zip(tokens, passages, strict=True)
        ]
        all_passages = [vector for _, own, _ in found for vector in own]
        student_scores = np.array([[maxsim(question, passage) for passage in all_passages] for question, _, _ in found])
        both.append((student_scores, np.array([attended for _, _, attended in found])))
    distillation = sum(kl(softmax(scores), softmax(student_scores)).mean() for student_scores, _ in both)
    assert first["distillation"] == pytest.approx(distillation, rel=1e-4)
    assert first["attention"] == pytest.approx(np.mean([kl(attention, attended) for _, attended in both]), rel=1e-3)


def test_the_first_lists_are_the_teachers(world, opened, run):
    lists = PassageLists.load(run[0] / "lists" / "lists-000000")
    data, texts = opened.data, opened.teacher.texts
    assert lists.corpus == data.store.fingerprint and lists.questions == data.table.fingerprint
    params = huggingface.to_params(tensor_files.read_tensors(world / "teacher"), TEACHER)
    passages = [data.store.passage(i) for i in range(data.store.num_passages)]
    corpus = inputs.encode_passages(texts.vocabulary, passages)
    for row in (0, len(data.table) - 1):
        tokens = english_tokens(texts.vocabulary, data, row)
        scores = []
        for start in range(0, len(corpus), N):
            question, vectors, _ = says(TEACHER, params, tokens, corpus[start : start + N])
            scores += [maxsim(question, passage) for passage in vectors]
        scores = np.array(scores)
        np.testing.assert_allclose(lists.scores[row], np.sort(scores)[::-1][:6], rtol=1e-4)
        np.testing.assert_allclose(lists.scores[row], scores[lists.rows[row]], rtol=1e-4)


def test_lists_of_a_run_killed_before_its_first_checkpoint_are_not_searched_again(world, opened, tmp_path, monkeypatch):
    wanted = np.array([1, 4])
    first = teacher.lists_by_model_teacher(opened.teacher, opened.data, tmp_path, wanted)
    assert (first.rows[:, 0] != NO_ROW).nonzero()[0].tolist() == wanted.tolist()
    monkeypatch.setattr(refresher, "exact_search", None)
    again = teacher.lists_by_model_teacher(opened.teacher, opened.data, tmp_path, wanted)
    np.testing.assert_array_equal(again.rows, first.rows)


def test_the_teacher_is_not_trained(world, run):
    folder, seen = run
    start = huggingface.to_params(tensor_files.read_tensors(world / "teacher"), TEACHER)
    jax.tree.map(np.testing.assert_array_equal, seen["before"], start)
    jax.tree.map(np.testing.assert_array_equal, seen["after"], start)
    assert len(set(tiny_run.losses(folder).values())) == 4
    assert read_json(folder / "model" / "config.json")["vocab_size"] == STUDENT.vocab_size


def test_the_teacher_reads_its_own_tokens_without_the_students_noise(opened):
    lists = PassageLists(
        np.tile(np.arange(6), (len(opened.data.table), 1)),
        np.zeros((len(opened.data.table), 6), np.float32),
        version=0,
        step=0,
        corpus=opened.data.store.fingerprint,
    )
    noisy = opened.feed(lists, noise=(np.arange(300, 310), 5.0)).batch(0)
    plain = opened.feed(lists).batch(0)
    assert (noisy.question_ids != plain.question_ids).any()
    halves = [opened.feed(lists, host_index=i, host_count=2).batch(0) for i in range(2)]
    for name in ("question_ids", "question_lengths", "passage_ids", "passage_lengths"):
        quiet, loud, *parts = (getattr(x, f"teacher_{name}") for x in (plain, noisy, *halves))
        np.testing.assert_array_equal(loud, quiet)
        np.testing.assert_array_equal(np.concatenate(parts), quiet)
    assert (plain.teacher_passage_ids != plain.passage_ids).any()
    assert plain.teacher_scores is None


def test_a_vocabulary_shared_with_the_student_needs_no_store_of_its_own(world, opened):
    shared = dict(vocabulary=str(world / "vocabulary.model"), store=None)
    found = teacher.open_model_teacher(teacher_config(world, **shared), data_config(world), opened.data, opened.mesh)
    assert found.texts.store is opened.data.store
    assert found.fingerprint != opened.teacher.fingerprint


def test_bfloat16_halves_the_matrices_and_changes_nothing_that_is_computed_in_it(world, opened):
    half = dataclasses.replace(TEACHER, dtype="bfloat16", dropout_rate=0.0)
    found = teacher.open_model_teacher(
        teacher_config(world, model=half), data_config(world), opened.data, opened.mesh
    ).params
    types = {jax.tree_util.keystr(path): leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    assert types["['embed']['embedding']"] == types["['head']['kernel']"] == jnp.bfloat16
    assert all(t == jnp.float32 for name, t in types.items() if "scale" in name or "relative_bias" in name)
    batch = make_batch(8)
    targets = jax.jit(
        lambda params: objectives.add_teacher_targets(
            merge(model_graph(half), params), batch, objectives.ObjectiveConfig()
        ),
        compiler_options=QUICK,
    )
    jax.tree.map(np.testing.assert_array_equal, targets(found), targets(opened.teacher.params))


def make_batch(pairs, vocabulary=tiny_run.PIECES, seed=0):
    rng = np.random.default_rng(seed)

    def texts(name, shape, size):
        lengths = rng.integers(1, size + 1, shape)
        ids = np.where(np.arange(size) < lengths[..., None], rng.integers(2, vocabulary, (*shape, size)), 0)
        return {f"{name}_ids": ids.astype(np.int32), f"{name}_lengths": lengths.astype(np.int32)}

    found = texts("question", (2 * pairs,), 5) | texts("passage", (pairs, 2), 7) | texts("answer", (2 * pairs,), 3)
    found["answer_lengths"][pairs:] = found["answer_lengths"][:pairs]
    return Batch(**found, **texts("teacher_question", (pairs,), 4), **texts("teacher_passage", (pairs, 2), 9))


@pytest.mark.parametrize("settings", [{"micro_batches": 2}, {"micro_batches": 4, "score_chunk": 3}])
def test_micro_batches_equal_the_whole(opened, settings):
    batch = make_batch(4)

    @jax.jit
    def targets(params, batch):
        model = merge(model_graph(TEACHER), params)
        whole = objectives.add_teacher_targets(model, batch, objectives.ObjectiveConfig(), 2.0)
        pieces = objectives.add_teacher_targets(model, batch, objectives.ObjectiveConfig(**settings), 2.0)
        some = objectives.add_teacher_targets(model, batch, objectives.ObjectiveConfig(read_pairs=2), 2.0)
        none = objectives.add_teacher_targets(model, batch, objectives.ObjectiveConfig(read_pairs=0), 1.0)
        return whole, pieces, some, none

    whole, pieces, some, none = targets(opened.teacher.params, batch)
    for name in ("teacher_scores", "teacher_attention"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.teacher_attention.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(some.teacher_attention, whole.teacher_attention[:2], rtol=1e-5)
    assert none.teacher_attention is None
    np.testing.assert_allclose(none.teacher_scores, 2 * whole.teacher_scores, rtol=1e-6)


def test_only_stage1_has_a_teacher_and_it_needs_one(world, tmp_path):
    for changes, message in (
        ({"teacher": None}, "TrainConfig.teacher: is not set; stage 1"),
        ({"objective": "end_to_end"}, "TrainConfig.teacher: is set, but the objective is 'end_to_end'"),
        ({"refresh": RefreshConfig(list_length=5)}, "list_length of the teacher: is 6, that of the refresh 5"),
    ):
        with pytest.raises(InputError, match=message):
            loop.train(str(tmp_path), train_config(world, **changes))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": "{world}/none.model"}, "none.model: no such vocabulary file"),
        ({"store": None}, "ModelTeacherConfig.store: must be set, since the teacher's vocabulary is not the student's"),
        ({"store": "{world}/other"}, "other: ModelTeacherConfig.store: holds other passages than .*store; build both"),
        ({"store": "{world}/store"}, "made with the vocabulary .*, not "),
        ({"weights": "{world}/none"}, "none: .*no such folder"),
        ({"weights": "{world}/damaged"}, "damaged: holds no weights"),
        (
            {"model": dataclasses.replace(TEACHER, d_ff=20)},
            r"teacher: .*wi_0.* has shape \(16, 24\) .* but shape \(20, 24\)",
        ),
        (
            {"model": dataclasses.replace(TEACHER, vocab_size=100)},
            "embed/embedding: has shape .100, 24.*needs .384, 24",
        ),
    ],
)
def test_bad_input(world, opened, changes, message):
    (world / "damaged").mkdir(exist_ok=True)
    if not (world / "other").exists():
        # As many passages of the same lengths: only their texts distinguish them.
        corpus = tiny_run.passages()
        write_passages(world / "other.tsv", [Passage(p.id, p.text.swapcase(), p.title) for p in corpus])
        build_store(world / "other.tsv", Vocabulary.load(str(world / "teacher.model")), world / "other")
    changes = {k: v.format(world=world) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(InputError, match=message) as caught:
        teacher.open_model_teacher(teacher_config(world, **changes), data_config(world), opened.data, opened.mesh)
    assert "\n" not in str(caught.value)


def test_a_store_that_is_missing_without_passages_to_build_it(world, opened):
    config = dataclasses.replace(data_config(world), passages=None)
    with pytest.raises(InputError, match=r"nowhere: no token store there; set DataConfig\.passages"):
        teacher.open_model_teacher(
            teacher_config(world, store=str(world / "nowhere")), config, opened.data, opened.mesh
        )
    assert TokenStore.open(world / "teacher_store", opened.teacher.texts.vocabulary).num_passages == 48


GIN = """
data.DataConfig.questions = @readers.read_parallel()
reatt/model_config.ModelConfig:
  vocab_size = {vocab_size}
  d_model = {d_model}
  num_layers = {num_layers}
teacher.ModelTeacherConfig:
  weights = '{weights}'
  model = @reatt/model_config.ModelConfig()
  vocabulary = '{vocabulary}'
  store = '{store}'
  list_length = 6
config.TrainConfig.objective = 'stage1'
config.TrainConfig.teacher = @teacher.ModelTeacherConfig()
optimizer.OptimizerConfig.total_steps = 10
"""


def test_a_killed_run_resumes_as_if_it_had_not_been_killed_and_needs_no_tensorflow(world, tmp_path, monkeypatch):
    """Checkpoints are written every 4 steps; TensorFlow, seqio and transformers can't be imported."""
    (tmp_path / "blocked").mkdir()
    for name in ("tensorflow", "seqio", "transformers"):
        (tmp_path / "blocked" / f"{name}.py").write_text(f"raise ImportError('{name} is blocked')\n")
    gin_file = tiny_run.write_gin(world, "stage1", tmp_path / "run.gin")
    model = {"vocab_size": TEACHER.vocab_size, "d_model": 24, "num_layers": 3}
    big = ModelConfig(**model, d_kv=8, d_ff=32, num_decoder_layers=1, num_heads=2, retriever_head=1, dropout_rate=0.0)
    params = jax.jit(lambda: split(create(big, 2))[1], compiler_options=QUICK)()
    huggingface.write_safetensors(tmp_path / "teacher", jax.device_get(params), big)
    named = {"weights": tmp_path / "teacher", "vocabulary": world / "teacher.model", "store": world / "teacher_store"}
    gin_file.write_text(gin_file.read_text() + GIN.format(**model, **named))
    monkeypatch.setattr(tiny_run, "_environment", with_path(tiny_run._environment, tmp_path / "blocked"))

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = tiny_run.arguments(gin_file, killed)
    process = tiny_run.start(command, "SIGKILL write 6", tmp_path / "compiled")
    _, error = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, error
    never_killed = tiny_run.start(tiny_run.arguments(gin_file, whole), cache=tmp_path / "compiled")
    process = tiny_run.start(command, cache=tmp_path / "compiled")
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert "resuming at step 4 of 10" in error
    _, error = never_killed.communicate(timeout=600)
    assert never_killed.returncode == 0, error
    assert list(tiny_run.losses(whole)) == list(range(1, 11))
    assert tiny_run.losses(killed) == tiny_run.losses(whole)  # bit for bit
    for path in (whole / "model").iterdir():
        assert path.read_bytes() == (killed / "model" / path.name).read_bytes(), path.name


def with_path(environment, folder):
    def changed(*args):
        found = environment(*args)
        return found | {"PYTHONPATH": f"{folder}{os.pathsep}{found['PYTHONPATH']}"}

    return changed


def test_a_run_is_not_continued_with_another_teacher(world, run, tmp_path):
    other = jax.jit(lambda: split(create(TEACHER, 3))[1], compiler_options=QUICK)()
    huggingface.write_safetensors(tmp_path / "other", jax.device_get(other), TEACHER)
    with pytest.raises(InputError, match=r"teacher: '.*' in the checkpoint but '.*' in this run"):
        loop.train(str(run[0]), train_config(world, teacher=teacher_config(world, weights=str(tmp_path / "other"))))


# Two steps on each mesh from the same weights; the teacher is sharded as the student.
SHARDED = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
import test_model_teacher as t
from class_jax.models import create, split
from class_jax.objectives import objectives
from class_jax.training import optimizer, step, teacher
from class_jax.distributed import sharding

batch = t.make_batch(16)
adamw = optimizer.make_optimizer(optimizer.OptimizerConfig(total_steps=10, learning_rate=0.1, eps=1e-2))
params = [jax.device_get(jax.jit(lambda c=c: split(create(c, 5))[1])()) for c in (t.STUDENT, t.TEACHER)]
results = {}
for shape in ((1, 1, 1), (2, 2, 2)):
    mesh = sharding.make_mesh(sharding.MeshConfig(*shape), jax.devices()[: np.prod(shape)])
    placed = teacher._place(params[1], t.TEACHER, mesh)
    train = step.make_train_step(
        t.STUDENT, "stage1", objectives.ObjectiveConfig(micro_batches=2), adamw, mesh, t.TEACHER, t.TEMPERATURE
    )
    state = step.init_state(t.STUDENT, adamw, mesh, params=params[0])
    for i in range(2):
        state, metrics = train(state, batch, placed)
        for name, value in metrics.items():
            results[f"{shape}/{i}/{name}"] = np.asarray(value)
    results[f"{shape}/shard"] = np.array(placed["head"]["kernel"].addressable_shards[0].data.shape)
    same = jax.tree.map(np.array_equal, jax.device_get(placed), params[1])
    results[f"{shape}/same"] = np.array(all(jax.tree.leaves(same)))
np.savez(sys.argv[2], **results)
"""


def test_eight_devices_compute_what_one_does(tmp_path):
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tests), str(tmp_path / "results.npz")],
        cwd=tiny_run.REPOSITORY,
        capture_output=True,
        text=True,
        env=tiny_run._environment(None, devices=8),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(tmp_path / "results.npz"))
    D, V = TEACHER.d_model, TEACHER.vocab_size
    assert found["(1, 1, 1)/shard"].tolist() == [D, V] and found["(2, 2, 2)/shard"].tolist() == [D // 2, V // 2]
    assert found["(1, 1, 1)/same"] and found["(2, 2, 2)/same"]
    compared = [
        name.removeprefix("(1, 1, 1)/") for name in found if name.startswith("(1, 1, 1)/") and name[10].isdigit()
    ]
    assert {"0/loss", "1/loss", "1/attention", "1/distillation", "0/grad_norm"} <= set(compared)
    for name in compared:
        one, eight = found[f"(1, 1, 1)/{name}"], found[f"(2, 2, 2)/{name}"]
        assert np.abs(eight - one).max() <= TOLERANCE * np.abs(one).max(), name


@pytest.mark.parametrize("retriever", ["multi_vector", "dense"])
def test_the_public_implementations_teacher(golden, retriever):
    """The fixture's teacher says what it said in PyTorch; there its vocabulary is the student's."""
    folder = golden / "class_reference" / retriever
    config, params = load(folder / "hf_teacher")
    expected = np.load(folder / "expected.npz")
    whole = batch_of(dict(np.load(folder / "inputs.npz")), "distill_")
    pairs = len(whole.passage_ids)
    batch = whole._replace(
        **{f"teacher_{name}": x[:pairs] for name, x in whole._asdict().items() if name[:4] in ("ques", "pass")}
    )
    found = jax.jit(
        lambda params: objectives.add_teacher_targets(
            merge(model_graph(config), params), batch, objectives.ObjectiveConfig()
        ),
        compiler_options=QUICK,
    )(params)
    for name, wanted in (
        ("teacher_scores", expected["teacher_scores"]),
        ("teacher_attention", expected["teacher_passage_attention"]),
    ):
        said = getattr(found, name)
        assert said.shape == wanted.shape
        assert np.abs(said - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


def test_the_papers_configuration_at_its_full_size(monkeypatch):
    """The gin file of stage 1: the teacher is T5 v1.1 large, whatever the student is; both parts of the step are traced."""
    monkeypatch.chdir(tiny_run.REPOSITORY)
    must = ("MODEL_DIR", "PARALLEL", "PASSAGES")
    bindings = [f"{name} = 'somewhere'" for name in must]
    config = configured(
        TrainConfig, ["gin/runs/stage1.gin"], [*bindings, "model_config.ModelConfig.retriever = 'dense'"]
    )
    taught_by = config.teacher.model
    assert (config.model.retriever, taught_by.retriever) == ("dense", "multi_vector")
    shapes = param_shapes(taught_by)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 783_150_080  # as published
    pairs, passages = config.batch_size, config.num_passages
    texts = {"question": (pairs, config.question_buckets[-1]), "passage": (pairs, passages, config.passage_buckets[-1])}
    arrays = {f"teacher_{name}_ids": jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in texts.items()}
    arrays |= {f"teacher_{n}_lengths": jax.ShapeDtypeStruct(s[:-1], jnp.int32) for n, s in texts.items()}
    batch = gin_runs.batch_shapes(config)._replace(**arrays)
    targets = jax.eval_shape(
        lambda params, batch: objectives.add_teacher_targets(
            merge(model_graph(taught_by), params), batch, config.losses, config.teacher.temperature
        ),
        shapes,
        batch,
    )
    assert targets.teacher_scores.shape == (64, 6400) and targets.teacher_attention.shape == (64, 100)
