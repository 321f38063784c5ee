# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Beam search against transformers' own, over one tiny random MT5; and its rules on a decoder made by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.configs import config_to_hf
from class_jax.models import Memory, ModelConfig, create, generation, merge, model_graph, search, split
from class_jax.models.search import SpecialTokens

pytestmark = pytest.mark.core

QUICK = {"xla_backend_optimization_level": 0}
CONFIG = ModelConfig(
    vocab_size=19,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    retriever_head=1,
)
B, N, T, A = 5, 2, 6, 7
# Float32 sums in another order: relative to scores of about 1 to 20.
TOLERANCE = dict(rtol=2e-5, atol=2e-5)


@pytest.fixture(scope="module")
def params():
    params = jax.jit(lambda: split(create(CONFIG, seed=1))[1], compiler_options=QUICK)()
    # A larger head than at the start of training: answers of several lengths.
    return params | {"head": {"kernel": 3 * params["head"]["kernel"]}}


@pytest.fixture(scope="module")
def memory():
    states = jax.random.normal(jax.random.key(7), (B, N, T, CONFIG.d_model))
    return Memory(states, jnp.arange(T) < jnp.array([[6, 3], [1, 6], [2, 2], [4, 5], [6, 6]])[..., None])


@pytest.fixture(scope="module")
def mt5(params):
    """The same weights in transformers."""
    import torch
    import transformers

    sizes = config_to_hf(CONFIG)
    names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
    config = transformers.MT5Config(**{name: sizes[name] for name in names})
    config.tie_word_embeddings = False  # mT5's head is its own; the constructor takes no such argument
    model = transformers.MT5ForConditionalGeneration(config)
    own = {
        name: torch.from_numpy(np.array(x))
        for name, x in huggingface.from_params(jax.device_get(params), CONFIG).items()
    }
    own |= {f"{stack}.embed_tokens.weight": own["shared.weight"] for stack in ("encoder", "decoder")}
    model.load_state_dict(own)
    return model.eval()


def transformers_answers(mt5, memory, beams, **settings):
    """Tokens without the start token, padded to A, and scores of all hypotheses: [B, beams, ...]."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    states = torch.from_numpy(np.array(memory.states.reshape(B, N * T, -1)))
    with torch.inference_mode():
        found = mt5.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=torch.from_numpy(np.array(memory.mask.reshape(B, N * T))).long(),
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=A,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    ids = found.sequences[:, 1:].numpy()
    ids = np.pad(ids, ((0, 0), (0, A - ids.shape[1])))
    # A padding id of 0 counts as none there: what follows an end of sequence is more of it.
    ids[np.cumsum(ids == 1, axis=1) - (ids == 1) > 0] = 0
    return ids.reshape(B, beams, A), found.sequences_scores.numpy().reshape(B, beams)


def best_answers(model, memory, beams):
    """The best answers of a beam search."""
    return generation.decode(model, generation.project(model, memory), A, beams)


@functools.partial(jax.jit, static_argnames=("beams", "settings"), compiler_options=QUICK)
def own_answers(params, memory, beams, settings):
    model = merge(model_graph(CONFIG), params)
    step, cache = generation.decoder_step(model, generation.project(model, memory), A, beams)
    settings = dict(settings)
    tokens = SpecialTokens(first=settings.pop("first", None), last=settings.pop("last", None))
    return search.beam_search(step, cache, B, A, beams, tokens=tokens, **settings)


CASES = [
    (2, {}),
    (4, {"length_penalty": 0.0}),
    (4, {"length_penalty": 2.0, "early_stopping": True}),
    (3, {"length_penalty": -1.0}),
    (3, {"length_penalty": 1.0, "early_stopping": "never"}),
    (4, {"first": 5, "last": 1}),
]


@pytest.mark.torch
@pytest.mark.parametrize(("beams", "settings"), CASES)
def test_equals_transformers(mt5, params, memory, beams, settings):
    forced = {"first": "forced_bos_token_id", "last": "forced_eos_token_id"}
    ids, scores = transformers_answers(mt5, memory, beams, **{forced.get(k, k): v for k, v in settings.items()})
    found = own_answers(params, memory, beams, tuple(settings.items()))
    real = scores > search._NEVER / 2  # places that hold no finished hypothesis
    assert real[:, 0].all()
    np.testing.assert_array_equal(np.asarray(found.ids)[real], ids[real])
    np.testing.assert_allclose(np.asarray(found.scores)[real], scores[real], **TOLERANCE)


@pytest.mark.torch
def test_the_cases_differ(mt5, params, memory):
    """Each setting matters on this model, so that the comparison above could fail; answers have many lengths."""
    found = [np.asarray(own_answers(params, memory, beams, tuple(s.items())).ids[:, 0]) for beams, s in CASES]
    lengths = np.unique(np.concatenate([np.asarray(search._lengths(jnp.asarray(ids), 1)) for ids in found]))
    assert len(lengths) >= 3
    assert len({ids.tobytes() for ids in found}) >= 4


def test_log_probabilities_are_those_of_the_teacher_forced_decoder(params, memory):
    found = own_answers(params, memory, 4, (("length_penalty", 0.6),))
    decode = jax.jit(lambda m, ids: merge(model_graph(CONFIG), params).decode(m, ids), compiler_options=QUICK)
    best, lengths = np.asarray(found.ids[:, 0]), np.asarray(found.lengths[:, 0])
    logits, attention = decode(memory, best)
    log_probabilities = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), best[..., None], -1)[..., 0]
    expected = np.where(np.arange(A) < lengths[:, None], log_probabilities, 0).sum(-1)
    np.testing.assert_allclose(found.log_probabilities[:, 0], expected, **TOLERANCE)
    np.testing.assert_allclose(found.scores[:, 0], expected / lengths**0.6, **TOLERANCE)
    beam = jax.jit(lambda m: best_answers(merge(model_graph(CONFIG), params), m, 4), compiler_options=QUICK)
    np.testing.assert_allclose(beam(memory).passage_attention, attention, **TOLERANCE)


def test_keys_and_values_of_the_memory_are_not_copied_per_beam(params, memory):
    """No array of the compiled search's program holds the memory once per beam."""

    def run(memory):
        model = merge(model_graph(CONFIG), params)
        return best_answers(model, memory, 3)

    text = str(jax.make_jaxpr(run)(memory))
    H, K = CONFIG.num_heads, CONFIG.d_kv
    assert f"f32[{B},{H},{N * T},{K}]" in text  # what it holds: once per question
    for copied in (f"f32[{B},3,{H},{N * T},{K}]", f"f32[{3 * B},{H},{N * T},{K}]", f"f32[{B},{H},3,{N * T},{K}]"):
        assert copied not in text


def chain(table):
    """A decoder whose logits depend only on the last token, [V, V]; its cache counts the steps of each beam."""
    logits = jnp.log(jnp.asarray(table))

    def step(tokens, position, cache):
        return logits[tokens], cache + 1

    return step


# From the start (0): "2" looks best, but all that follows it is improbable; "3" ends at once with certainty.
GARDEN_PATH = [
    [1e-9, 1e-9, 0.6, 0.4 - 2e-9],
    [0.25, 0.25, 0.25, 0.25],
    [0.2, 0.2, 0.3, 0.3],
    [1e-9, 1.0 - 3e-9, 1e-9, 1e-9],
]


def test_beams_find_what_greedy_search_misses():
    step, cache = chain(GARDEN_PATH), jnp.zeros((1, 1, 1))
    greedy = search.greedy_search(step, cache, 1, 4)
    beam = search.beam_search(step, jnp.zeros((1, 1, 2)), 1, 4, 2, length_penalty=0.0)
    assert np.asarray(greedy.ids[0, 0])[0] == 2
    np.testing.assert_array_equal(beam.ids[0, 0], [3, 1, 0, 0])
    np.testing.assert_allclose(beam.log_probabilities[0, 0], np.log(0.4), rtol=1e-5)
    assert beam.lengths[0, 0] == 2


def test_forced_tokens_and_pads_of_greedy_search():
    tokens = SpecialTokens(start=0, eos=1, pad=3, first=2, last=1)
    found = search.greedy_search(chain(GARDEN_PATH), jnp.zeros((1, 1, 1)), 1, 4, tokens)
    np.testing.assert_array_equal(found.ids[0, 0], [2, 2, 2, 1])
    found = search.greedy_search(chain(GARDEN_PATH), jnp.zeros((1, 1, 1)), 1, 4, SpecialTokens(pad=2, first=3))
    np.testing.assert_array_equal(found.ids[0, 0], [3, 1, 2, 2])
    assert found.lengths[0, 0] == 2


def test_mbart_fixture_rules(golden):
    """4 beams of the fixture end where mBART's forced end of sequence is: what `last` is for."""
    fixture = np.load(golden / "mbart" / "fixture.npz")
    tokens = SpecialTokens(start=2, eos=2, pad=1, first=323, last=2)
    beams = fixture["beam4"]
    assert (beams[:, 0] == tokens.start).all() and (beams[:, 1] == tokens.first).all()
    uniform = lambda ids, position, cache: (jnp.zeros((*ids.shape, 324)), cache)  # noqa: E731
    found = search.beam_search(uniform, jnp.zeros((1, 5, 4)), 5, beams.shape[1] - 1, 4, tokens=tokens)
    best = np.asarray(found.ids[:, 0])
    assert (best[:, 0] == tokens.first).all()
    assert [row[length - 1] for row, length in zip(best, found.lengths[:, 0], strict=True)] == [2] * 5
