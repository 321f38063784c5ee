# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The wheel without extras: a model answers and searches, and what needs more names the extra."""

import pytest
import tiny_run
from clean_environment import call

from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary

ABSENT = ("tensorflow", "scann", "seqio", "apache_beam", "torch", "transformers", "matplotlib", "openai")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a token store and a folder of gin files over the same tiny data."""
    import tiny_model

    folder = tmp_path_factory.mktemp("core")
    tiny_run.write_data(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    build_store(folder / "passages.tsv", vocabulary, folder / "store", progress=False)
    save_pretrained(folder / "model", tiny_model.random_params(), tiny_model.CONFIG, folder / "vocabulary.model")
    return folder


def test_none_of_the_extras_is_there(core, folder):
    program = f"import importlib.util as u; print([name for name in {ABSENT} if u.find_spec(name)])"
    assert call([core / "python", "-c", program], folder).stdout.strip() == "[]"


def test_a_model_answers_and_searches_exactly(core, folder):
    program = """
from class_jax import CLASS, Searcher
model = CLASS.from_pretrained("model")
corpus = Searcher.open("store", vocabulary=model.vocabulary)
[answer] = model.answer(["joki Asla"], corpus, passages=3, languages="fi", max_answer_tokens=3)
print(len(answer.passages))
"""
    assert call([core / "python", "-c", program], folder).stdout.strip() == "3"


def test_the_command_line_answers(core, folder):
    options = [
        "--model",
        "model",
        "--store",
        "store",
        "--passages",
        "2",
        "--language",
        "fi",
        "--max-answer-tokens",
        "3",
    ]
    assert "log-probability" in call([core / "class-jax", "answer", *options, "joki Asla"], folder).stdout


NEEDS = {
    "retrieve": "from class_jax.retrieval.bm25 import BM25; BM25.build(['a b'])",
    "data": "from class_jax.corpus.segments import sentences; sentences('A b. C d.', 'en')",
    "torch": "from class_jax.llm.local import LocalChatModel, LocalModelConfig; LocalChatModel(LocalModelConfig('m'))",
    "evaluate": "from class_jax.evaluation.text import segment_japanese; segment_japanese('a')",
    "llm": "from class_jax.llm import connection",
}


@pytest.mark.parametrize("extra", NEEDS)
def test_what_needs_an_extra_names_it_in_a_line(core, folder, extra):
    last = call([core / "python", "-c", NEEDS[extra]], folder, status=1).stderr.splitlines()[-1]
    assert "InputError: " in last and f"pip install 'class-jax[{extra}]'" in last


def test_training_from_tasks_names_its_extra(core, folder):
    gin_file = tiny_run.write_gin(folder, "stage1")
    flags = ["--gin.MODEL_DIR='run'", "--gin.data.DataConfig.questions='some_task'"]
    done = call([core / "class-jax", "train", str(gin_file), *flags], folder, status=2)
    assert len(done.stderr.splitlines()) == 1 and "pip install 'class-jax[train]'" in done.stderr
