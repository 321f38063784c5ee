# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Numbers of the public PyTorch implementation, for both retrievers: tiny random checkpoints, float32."""

import functools

import jax
import numpy as np
import pytest
from reference_fixtures import batch_of, load

from class_jax.checkpoints.huggingface import from_params, names
from class_jax.common.files import read_json
from class_jax.models import generation, merge, model_graph, scoring
from class_jax.objectives import losses, objectives
from class_jax.training.optimizer import decay_mask

pytestmark = pytest.mark.core

# Largest difference over largest value of an array, or of a number.
FORWARD_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3

MAX_ANSWER_TOKENS = 11
# Compiling takes most of the time here, and less of it without optimisations.
QUICK = {"xla_backend_optimization_level": 0}
OBJECTIVES = {"e2e": "end_to_end", "distill": "stage1"}


def assert_close(actual, expected, tolerance=FORWARD_TOLERANCE, name=""):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, name
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    assert difference <= tolerance, f"{name} differs by {difference:.1e}, relatively"


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def run(config, params, batch):
    """All that one reading of a batch gives; the key names are those of expected.npz."""
    model = merge(model_graph(config), params)
    questions, passages = objectives.encode_batch(model, batch, objectives.ObjectiveConfig(), None)
    memory = model.read(questions, passages)
    logits, attention = model.decode(memory, batch.answer_ids)
    results = {
        "query_vectors": questions.vectors,
        "passage_vectors": passages.vectors.reshape(-1, *passages.vectors.shape[2:]),
        "scores_sum": scoring.score_all(questions, passages),
        "own_scores": scoring.score_own(questions, passages),
        "passage_attention": attention,
        "reader_logits": logits,
        "reader_loss_per_query": losses.token_cross_entropy(logits, batch.answer_ids, batch.answer_lengths),
    }
    return results, generation.decode(model, generation.project(model, memory), MAX_ANSWER_TOKENS)


class Reference:
    def __init__(self, folder):
        self.inputs = dict(np.load(folder / "inputs.npz"))
        self.expected = dict(np.load(folder / "expected.npz"))
        self.config, self.params = load(folder / "hf_checkpoint")
        self.teacher = load(folder / "hf_teacher")
        self.batch = batch_of(self.inputs)
        self.alpha = read_json(folder / "README.json")["alpha"]

    @functools.cached_property
    def results(self):
        return run(self.config, self.params, self.batch)

    @functools.cached_property
    def teacher_results(self):
        """The teacher reads the first half of the questions: the English ones."""
        B = self.inputs["distill_passage_ids"].shape[0]
        batch = batch_of(self.inputs, "distill_")
        english = {name: x[:B] for name, x in batch._asdict().items() if name.startswith(("question", "answer"))}
        return run(*self.teacher, batch._replace(**english))[0]

    @functools.cache  # noqa: B019 (lives as long as the module's tests)
    def gradients(self, kind):
        """Loss and gradients by Hugging Face name of "e2e" or "distill"."""
        batch = self.batch
        if kind == "distill":
            teacher = self.teacher_results
            batch = batch_of(self.inputs, "distill_")._replace(
                teacher_scores=teacher["scores_sum"], teacher_attention=teacher["passage_attention"]
            )
        graph, settings = model_graph(self.config), objectives.ObjectiveConfig(alpha=self.alpha)
        objective = objectives.OBJECTIVES[OBJECTIVES[kind]]
        function = jax.value_and_grad(lambda params: objective(merge(graph, params), batch, settings, None)[0])
        value, gradients = jax.jit(function, compiler_options=QUICK)(self.params)
        return value, dict(from_params(gradients, self.config))


@pytest.fixture(scope="module", params=["multi_vector", pytest.param("dense", marks=pytest.mark.torch_file)])
def reference(request, golden):
    reference = Reference(golden / "class_reference" / request.param)
    assert reference.config.retriever == request.param
    return reference


def test_vectors(reference):
    for side in ("query", "passage"):
        name = f"{side}_vectors"
        actual, expected = np.asarray(reference.results[0][name]), reference.expected[name]
        if reference.config.retriever == "multi_vector":
            mask = reference.inputs[f"{side}_mask"].reshape(expected.shape[:2]) > 0
            actual, expected = actual[mask], expected[mask]
        assert_close(actual, expected, name=name)


def test_scores_of_every_question_with_every_passage(reference):
    assert_close(reference.results[0]["scores_sum"], reference.expected["scores_sum"])


def test_scores_of_each_question_with_its_own_passages(reference):
    B, N = reference.inputs["passage_ids"].shape[:2]
    own = reference.expected["scores_sum"].reshape(B, B, N)[np.arange(B), np.arange(B)]
    assert_close(reference.results[0]["own_scores"], own)


def test_reader(reference):
    results, expected = reference.results[0], reference.expected
    answered = reference.inputs["labels"] >= 0
    assert_close(np.asarray(results["reader_logits"])[answered], expected["reader_logits"][answered], name="logits")
    assert_close(results["passage_attention"], expected["passage_attention"], name="P_ca")
    assert_close(results["reader_loss_per_query"], expected["reader_loss_per_query"], name="loss of each question")
    lengths = answered.sum(-1)
    token_mean = (np.asarray(results["reader_loss_per_query"]) * lengths).sum() / lengths.sum()
    assert_close(token_mean, expected["reader_loss_batch"], name="mean over all tokens")


def test_greedy_answers(reference):
    answers = reference.results[1]
    np.testing.assert_array_equal(answers.ids, reference.expected["greedy"][:, 1:])  # it begins with the start token
    assert_close(answers.passage_attention, reference.expected["passage_attention"])


def test_teacher(reference):
    assert_close(reference.teacher_results["scores_sum"], reference.expected["teacher_scores"])
    assert_close(reference.teacher_results["passage_attention"], reference.expected["teacher_passage_attention"])


@pytest.mark.parametrize("kind", ["e2e", "distill"])
def test_total_loss(reference, kind):
    assert_close(reference.gradients(kind)[0], reference.expected[f"{kind}_total_loss"])


@pytest.mark.parametrize("kind", ["e2e", "distill"])
def test_norm_of_every_gradient(reference, kind):
    prefix = f"{kind}/grad_norm/"
    expected = {key.removeprefix(prefix): x for key, x in reference.expected.items() if key.startswith(prefix)}
    _, gradients = reference.gradients(kind)
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert_close(np.linalg.norm(gradient), expected[name], GRADIENT_TOLERANCE, name)


@pytest.mark.parametrize("kind", ["e2e", "distill"])
def test_whole_gradients(reference, kind):
    prefix = f"{kind}/grad/"
    _, gradients = reference.gradients(kind)
    compared = [key.removeprefix(prefix) for key in reference.expected if key.startswith(prefix)]
    assert len(compared) == 6
    for name in compared:
        assert_close(gradients[name], reference.expected[prefix + name], GRADIENT_TOLERANCE, name)


def test_weight_decay_spares_what_the_reference_spares(reference):
    """The reference exempts names with "bias" or "LayerNorm.weight"; T5's norms are called "layer_norm.weight"."""
    mask = decay_mask(reference.params)
    for name, (path, _) in names(reference.config).items():
        decayed = functools.reduce(lambda tree, part: tree[part], path, mask)
        assert decayed == (not any(part in name for part in ("bias", "LayerNorm.weight"))), name
    assert not all(jax.tree.leaves(mask))
