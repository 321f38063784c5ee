# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training loop on a tiny run: what it learns, logs, keeps, refuses, and starts from."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_run

from class_jax.checkpoints import convert, weights
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.corpus.store import TokenStore
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.questions.readers import read_anchor_questions
from class_jax.refresh.lists import PassageLists
from class_jax.training.logs import MetricLog
from class_jax.training.profiling import traces

STEPS = 30
BAD_ANSWER = "\u2603"  # no passage or other question holds it, so its bytes are pieces of only this answer
BAD_QUESTIONS = {"fi-bad0", "ar-bad1"}


def poisoned(folder, vocabulary):
    """The weights in `folder`, whose embedding of one piece of the bad answer is not a number."""
    [file] = folder.glob("*.safetensors")
    tensors = safetensors.numpy.load_file(file)
    # The last piece of a text is never fed to the decoder: the one before it is.
    piece = vocabulary.encode(BAD_ANSWER)[-2]
    tensors["shared.weight"][piece] = np.nan
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        if name in tensors:
            tensors[name] = tensors["shared.weight"]
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Every run of this module: the folder in which each has one, and how each ended."""
    folder = tmp_path_factory.mktemp("run")
    data = folder / "data"
    tiny_run.write_data(data)
    files = {stage: tiny_run.write_gin(data, stage) for stage in ("stage1", "end_to_end")}
    questions = (data / "questions.tsv").read_text()
    bad = "".join(f"{id_}\tmika joki\t{BAD_ANSWER}\n" for id_ in sorted(BAD_QUESTIONS))
    (data / "bad_questions.tsv").write_text(questions + bad)
    short = {"optimizer__OptimizerConfig__total_steps": 2}
    trained = folder / "end_to_end"
    first = [
        tiny_run.arguments(
            files["end_to_end"],
            trained,
            optimizer__OptimizerConfig__total_steps=STEPS,
            config__RefreshConfig__list_length=len(tiny_run.passages()) - 1,
            evaluator__EvaluationConfig__ks=(1, 5, len(tiny_run.passages())),
            config__TrainConfig__tensorboard=True,
            config__TrainConfig__evaluation="@evaluator.EvaluationConfig()",
            config__TrainConfig__evaluate_every=5,
            config__TrainConfig__evaluate_first=True,
            config__CheckpointConfig__every=5,
            config__CheckpointConfig__keep_last=2,
            config__CheckpointConfig__best_metric="eval/MRR/macro",
        ),
        tiny_run.arguments(files["stage1"], folder / "stage1", optimizer__OptimizerConfig__total_steps=STEPS),
    ]
    ended = dict(zip(("end_to_end", "stage1"), tiny_run.run_in_turn(first, cache=folder / "compiled"), strict=True))
    assert all(end.status == 0 for end in ended.values()), ended
    convert.convert(convert.open_source(trained), folder / "newest")  # its `model` is the best step
    poisoned_folder = folder / "poisoned"
    poisoned_folder.mkdir()
    for name in ("config.json", "model.safetensors"):  # not the digests, which the poisoned weights would not match
        (poisoned_folder / name).write_bytes((trained / "model" / name).read_bytes())
    poisoned(poisoned_folder, Vocabulary.load(str(data / "vocabulary.model")))
    then = [
        tiny_run.arguments(
            files["end_to_end"],
            folder / "from_run",
            config__TrainConfig__init_from=str(trained),
            config__TrainConfig__profile=(1, 1),
            **short,
        ),
        tiny_run.arguments(
            files["end_to_end"], folder / "from_model", config__TrainConfig__init_from=str(folder / "newest"), **short
        ),
        tiny_run.arguments(
            files["end_to_end"],
            folder / "new_head",
            config__TrainConfig__init_from=str(trained),
            config__TrainConfig__head_from_embedding=0.5,
            **short,
        ),
        tiny_run.arguments(
            files["end_to_end"],
            folder / "not_finite",
            config__TrainConfig__init_from=str(poisoned_folder),
            readers__read_anchor_questions__path=str(data / "bad_questions.tsv"),
            config__CheckpointConfig__every=1,
        ),
    ]
    names = ("from_run", "from_model", "new_head", "not_finite")
    ended |= dict(zip(names, tiny_run.run_in_turn(then, cache=folder / "compiled"), strict=True))
    return folder, ended


@pytest.mark.parametrize("stage", ["stage1", "end_to_end"])
def test_the_loss_falls(run, stage):
    losses = list(tiny_run.losses(run[0] / stage).values())
    assert len(losses) == STEPS
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_staleness_is_that_of_the_lists_in_use(run):
    """Lists made at steps 0, 6, 12, ... take effect 5 steps later."""
    staleness = [line["staleness"] for line in tiny_run.metrics(run[0] / "end_to_end") if "loss" in line]
    assert staleness == [step - max(0, (step - 5) // 6 * 6) for step in range(STEPS)]
    taken = [line for line in tiny_run.metrics(run[0] / "end_to_end") if "refresh/version" in line]
    assert [line["refresh/from_step"] for line in taken] == [11, 17, 23, 29]
    assert {line["refresh/staleness"] for line in taken} == {5}
    stage1 = [line["staleness"] for line in tiny_run.metrics(run[0] / "stage1") if "loss" in line]
    assert stage1 == list(range(STEPS))


def test_a_question_never_gets_its_own_passage(run):
    """The lists are as long as the corpus without one passage: they hold all but the question's own."""
    folder, _ = run
    store = TokenStore.open(folder / "data" / "store")
    own = dict(line.split("\t") for line in (folder / "data" / "own.tsv").read_text().splitlines())
    questions = [q.id for q in read_anchor_questions(folder / "data" / "questions.tsv")]
    versions = sorted((folder / "end_to_end" / "lists").iterdir())
    assert len(versions) >= 3
    for version in versions:
        for question, rows in zip(questions, PassageLists.load(version).rows, strict=True):
            assert set(rows.tolist()) == set(range(store.num_passages)) - {store.row(own[question])}


def test_evaluation_is_logged_and_the_best_checkpoint_stays(run):
    folder = run[0] / "end_to_end"
    measured = {line["step"]: line for line in tiny_run.metrics(folder) if "eval/MRR/macro" in line}
    assert list(measured) == list(range(0, STEPS + 1, 5))
    wanted = {f"eval/{score}/{group}" for score in ("R@1", "R@5", "f1", "em") for group in ("ar", "fi", "macro")}
    assert all(wanted <= set(line) for line in measured.values())
    scores = {step: line["eval/MRR/macro"] for step, line in measured.items() if step > 0}
    assert len(set(scores.values())) > 1
    best = max(scores, key=lambda step: (scores[step], step))
    with TrainCheckpoints(folder / "checkpoints", best_metric="eval/MRR/macro", read_only=True) as checkpoints:
        assert checkpoints.best_step() == best
        assert checkpoints.steps() == sorted({best, STEPS - 5, STEPS})
        kept = checkpoints.open_arrays(best)[0]["params/embed/embedding"].load()
    exported = safetensors.numpy.load_file(folder / "model" / "model.safetensors")["shared.weight"]
    np.testing.assert_array_equal(exported, kept)


def test_the_weights_of_the_best_step_are_handed_on(tmp_path):
    made = {step: {"kernel": jnp.full((2, 3), step, jnp.float32)} for step in (5, 10, 15)}
    with TrainCheckpoints(tmp_path, keep_last=1, keep_best=1, best_metric="f1") as checkpoints:
        assert weights.best_params(checkpoints, 15, made[15]) is made[15]  # none is best yet
        for step, score in ((5, 0.1), (10, 0.3), (15, 0.2)):
            checkpoints.save(step, {"params": made[step], "other": jnp.zeros(2)}, {}, metrics={"f1": score})
        checkpoints.wait()
        np.testing.assert_array_equal(weights.best_params(checkpoints, 15, made[15])["kernel"], made[10]["kernel"])
        assert weights.best_params(checkpoints, 10, made[10]) is made[10]


def test_a_step_is_traced_where_asked(run):
    (trace,) = traces(run[0] / "from_run" / "profile")
    assert b"jvp(passages)" in trace.read_bytes()
    assert not (run[0] / "from_model" / "profile").exists()


def test_tensorboard_files_appear_where_asked(run):
    [events] = (run[0] / "end_to_end").glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert all(name in content for name in (b"loss", b"learning_rate", b"refresh/staleness", b"eval/f1/macro"))
    assert not list((run[0] / "stage1").glob("events*"))


def test_a_run_starts_from_another_run_or_from_its_exported_weights(run):
    folder, ended = run
    assert [ended[name].status for name in ("from_run", "from_model")] == [0, 0]
    from_nothing, from_run, from_model = (
        tiny_run.losses(folder / name) for name in ("end_to_end", "from_run", "from_model")
    )
    assert from_run == from_model
    assert from_run[1] < 0.8 * from_nothing[1]
    parts = [tiny_run.metrics(folder / name)[0] for name in ("from_run", "from_model")]
    assert parts[0] == parts[1]


def test_a_head_can_begin_as_the_embedding(run):
    params = {
        "embed": {"embedding": np.random.default_rng(0).normal(3.0, 2.0, (30, 4))},
        "head": {"kernel": np.zeros((4, 30))},
    }
    made = weights.with_head_from_embedding(params, 0.5)
    kernel = np.asarray(made["head"]["kernel"])
    assert kernel.std() == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(
        kernel.T / params["embed"]["embedding"],
        np.full((30, 4), kernel[0, 0] / params["embed"]["embedding"][0, 0]),
        rtol=1e-5,
    )
    folder, ended = run
    assert ended["new_head"].status == 0
    old, new = (tiny_run.metrics(folder / name)[0] for name in ("from_run", "new_head"))
    assert new["reader"] > 1.1 * old["reader"]  # a head that training had fitted is gone
    assert new["retriever"] == pytest.approx(old["retriever"], rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_questions(run):
    folder, ended = run[0] / "not_finite", run[1]["not_finite"]
    assert ended.status == 2
    [line] = [line for line in ended.error.splitlines() if line.startswith("error: ")]
    found = re.fullmatch(
        rf"error: {folder}: the loss of step (\d+) is not finite; questions (.+); look at these questions, "
        "lower the learning rate, or start again from the last checkpoint",
        line,
    )
    step, named = int(found[1]), set(found[2].split(", "))
    assert 1 < step < 20 and named and named <= BAD_QUESTIONS
    assert list(tiny_run.losses(folder)) == list(range(1, step))
    with TrainCheckpoints(folder / "checkpoints", read_only=True) as checkpoints:
        assert max(checkpoints.steps()) == step - 1
    assert not (folder / "model").exists()


def test_a_resumed_run_keeps_only_the_metrics_up_to_its_checkpoint(tmp_path):
    file = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(7))
    for start, kept in ((4, [0, 1, 2, 3, 4]), (0, [])):
        file.write_text(whole + '{"step": 3, "lo')
        log = MetricLog(tmp_path, 10, start, 1, tensorboard=False, progress=False)
        log.write(start + 1, {"loss": 0.25})
        log.close()
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["step"] for line in lines] == [*kept, start + 1]
        assert lines[-1]["loss"] == 0.25
