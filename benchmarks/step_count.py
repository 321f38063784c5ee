# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Matrix FLOPs of a training step, beside the reference's layout: only traced, in seconds and without memory.

The lengths are either the limits ("full") or those of batches that the feed forms of real public data ("real").
"""

import collections
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import reference_layout

from class_jax.models import ModelConfig, merge, model_graph, param_shapes
from class_jax.objectives.batch import Batch, TokenSlots
from class_jax.objectives.objectives import OBJECTIVES, ObjectiveConfig, add_teacher_targets
from class_jax.planning.flops import count_flops

REPOSITORY = Path(__file__).resolve().parents[1]
# T5 v1.1 large, as ReAtt: what gin/runs/stage1.gin calls the teacher.
TEACHER = ModelConfig(
    vocab_size=32128,
    d_model=1024,
    d_kv=64,
    d_ff=2816,
    num_layers=24,
    num_decoder_layers=24,
    num_heads=16,
    dropout_rate=0.0,
    dtype="bfloat16",
)


def batch_shapes(objective, batch, passages, *, lengths):
    """The batch of a step as shapes.

    Args:
      objective: "stage1" or "end_to_end".
      batch: questions (pairs), B. passages: of a question, N.
      lengths: Q, P and A by name; in stage 1 the teacher's, too: "teacher Q", "teacher P" (else the student's).
    """

    def integers(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    B, N, Q, P, A = batch, passages, lengths["Q"], lengths["P"], lengths["A"]
    readings = 2 * B if objective == "stage1" else B
    made = Batch(
        question_ids=integers(readings, Q),
        question_lengths=integers(readings),
        passage_ids=integers(B, N, P),
        passage_lengths=integers(B, N),
        answer_ids=integers(readings, A),
        answer_lengths=integers(readings),
    )
    if objective == "stage1":
        made = made._replace(
            teacher_question_ids=integers(B, lengths.get("teacher Q", Q)),
            teacher_question_lengths=integers(B),
            teacher_passage_ids=integers(B, N, lengths.get("teacher P", P)),
            teacher_passage_lengths=integers(B, N),
        )
    return made


def count_ours(config, objective, batch, losses=None, teacher=TEACHER):
    """Our step's FLOPs: loss, gradient and, in stage 1, the teacher's forward pass."""
    graph, teacher_graph = model_graph(config), model_graph(teacher)
    losses = losses or ObjectiveConfig()

    def step(params, batch, teacher_params):
        if objective == "stage1":
            batch = add_teacher_targets(merge(teacher_graph, teacher_params), batch, losses)
        key = None if config.dropout_rate == 0.0 else jax.random.key(0)
        loss = lambda params: OBJECTIVES[objective](merge(graph, params), batch, losses, key)  # noqa: E731
        return jax.value_and_grad(loss, has_aux=True)(params)

    return count_flops(step, param_shapes(config), batch, param_shapes(teacher))


def count_reference(config, objective, batch, teacher=TEACHER):
    """The same for the reference's layout."""
    graph, teacher_graph = model_graph(config), model_graph(teacher)

    def step(params, batch, teacher_params):
        if objective == "end_to_end":
            return jax.value_and_grad(lambda p: reference_layout.end_to_end(merge(graph, p), batch))(params)
        taught = jax.lax.stop_gradient(reference_layout.teach(merge(teacher_graph, teacher_params), batch))
        loss = lambda p: reference_layout.stage1(merge(graph, p), batch, *taught)  # noqa: E731
        return jax.value_and_grad(loss, has_aux=True)(params)

    return count_flops(step, param_shapes(config), batch, param_shapes(teacher))


def real_feed(data, folder, objective, batch, passages, vocabulary=None, seed=0, packer=None):
    """A feed over real public data, with the paper's limits; prepared once in `folder`.

    Questions are XOR-Retrieve's with their English answers (stage 1: the parallel questions, which have none, with
    answers drawn from the same file). A question's passages are drawn at random from those of the dump and of XQuAD:
    the lengths are what matters here. With a `packer` (`class_jax.training.token_slots`) tokens are packed.
    """
    from class_jax.corpus.store import TokenStore, build_store
    from class_jax.corpus.vocabulary import Vocabulary
    from class_jax.demo import real
    from class_jax.questions.readers import read_xor
    from class_jax.questions.real_pairs import training_pairs
    from class_jax.questions.table import QuestionTable
    from class_jax.refresh.lists import PassageLists
    from class_jax.training.feed import Feed, TeacherTexts

    folder = Path(folder)
    if not (folder / "counts.json").exists():
        real.prepare(Path(data), folder)
    opened = Vocabulary.load(str(vocabulary or folder / "vocabulary.model"))
    store_folder = folder / f"store-{opened.fingerprint[:12]}"
    if not store_folder.exists():
        build_store(folder / "passages.tsv", opened, store_folder, max_tokens=200)
    store = TokenStore.open(store_folder, opened)
    rng = np.random.default_rng(seed)
    questions = list(read_xor(Path(data) / "xor_retrieve" / "xor_train_retrieve_eng_span.jsonl", needs_answers=True))
    if objective == "stage1":
        answers = [question.answers for question in questions]
        drawn = iter(rng.integers(len(answers), size=100_000))
        questions = [dataclasses.replace(q, answers=answers[next(drawn)]) for q in training_pairs(data)]
    table = QuestionTable.from_questions(questions, opened)
    rows = np.stack([rng.permutation(store.num_passages)[:passages] for _ in range(len(table))])
    lists = PassageLists(rows, np.zeros(rows.shape, np.float32), 0, 0, store.fingerprint, table.fingerprint)
    texts = TeacherTexts(opened, store) if objective == "stage1" else None
    return Feed(table, store, lists, batch, passages, seed, objective, teacher_texts=texts, packer=packer)


def fed_shapes(batch):
    """A batch of the feed as shapes, and its longest answer, to which the reference pads."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    return shapes, max(1, int(batch.answer_lengths.max()))


def limits(objective, batch, passages):
    """A batch at the paper's limits, as `fed_shapes`."""
    return batch_shapes(objective, batch, passages, lengths={"Q": 50, "P": 200, "A": 50}), 50


def length_summary(batches):
    """Mean, median and 95th percentile of the tokens of questions, passages and answers."""
    found = {}
    for name in ("question", "passage", "answer"):
        lengths = np.concatenate([getattr(batch, f"{name}_lengths").ravel() for batch in batches])
        found[name] = {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
        }
    return found


def compare(config, objective, batches, teacher=TEACHER, losses=None):
    """Counts both sides over batches; returns their means and the ratio.

    Args:
      config: the model. objective: "stage1" or "end_to_end".
      batches: shapes and longest answer of each, as `fed_shapes` gives; equal ones are counted once.
      teacher: of stage 1. losses: settings of the objective, where they are not the default.
    """
    times = collections.Counter(batches)
    ours, theirs, scopes = {}, {}, collections.Counter()
    rows = []
    for (shapes, answer), count in times.items():
        if shapes not in ours:
            ours[shapes] = count_ours(config, objective, shapes, losses, teacher)
        if answer not in theirs:  # its rows are always of 250
            lengths = {"Q": 50, "P": 200, "A": answer}
            padded = batch_shapes(objective, *shapes.passage_lengths.shape, lengths=lengths)
            theirs[answer] = count_reference(config, objective, padded, teacher=teacher).model
        for scope, flops in ours[shapes].by_scope(2).items():
            scopes[scope] += flops * count / len(batches)
        arrays = {name: x for name, x in shapes._asdict().items() if x is not None}
        sizes = {name: list(x.shape) for name, x in arrays.items() if name.endswith("_ids")}
        slots = {name: dataclasses.asdict(x) for name, x in arrays.items() if isinstance(x, TokenSlots)}
        rows.append({"shapes": sizes, "slots": slots, "answer": answer, "batches": count})
    mean = sum(ours[shapes].model * count for (shapes, _), count in times.items()) / len(batches)
    other = sum(theirs[answer] * count for (_, answer), count in times.items()) / len(batches)
    return {
        "ours": mean,
        "reference": other,
        "ratio": mean / other,
        "scopes": dict(scopes.most_common()),
        "batches": rows,
    }
