# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""seqio tasks, mixtures and TFDS builders over tiny files in the public formats."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gin

pytest.importorskip("seqio")
pytest.importorskip("tensorflow_datasets")

from class_jax import tasks
from class_jax.corpus.inputs import encode_answer, encode_question
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.errors import InputError
from class_jax.questions import readers
from class_jax.questions.table import QuestionTable

pytestmark = pytest.mark.tensorflow

TEXTS = {
    "ar": "ما هي عاصمة فنلندا؟ “هلسنكي”",
    "bn": "ফিনল্যান্ডের রাজধানী কী?",
    "en": "What's the capital of “Finland” – and why?",
    "fi": "Mikä on Suomen pääkaupunki – ja miksi…?",
    "ja": "フィンランドの首都はどこですか。",
    "ko": "핀란드의 수도는 어디입니까?",
    "ru": "Какой город — столица «Финляндии»?",
    "te": "ఫిన్లాండ్ రాజధాని ఏది?",
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    texts = [f"question: {text} title: context: Helsinki 1812" for text in TEXTS.values()]
    return train_vocabulary(texts * 3, tmp_path_factory.mktemp("tasks") / "v.model", 390)


@pytest.fixture(scope="module")
def xor_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "xor_train_retrieve_eng_span.jsonl"
    with open(path, "w", encoding="utf-8") as f:
        for i, (language, text) in enumerate(TEXTS.items()):
            for j in range(i + 1):
                long = " ".join([text] * (1 + 20 * (j == 1)))  # far more than 50 tokens
                answers = [[], ["Helsinki"], ["Helsinki " * 40, "1812"]][j % 3]
                record = {"id": f"{i}/{j}", "question": long, "answers": answers, "lang": f" {language}"}
                f.write(json.dumps(record) + "\n")
    return path


@pytest.fixture(scope="module")
def xor(vocabulary, xor_path):
    return tasks.register_xor("test_xor", xor_path, vocabulary.path)


def examples(name, **settings):
    import seqio

    settings = {"sequence_length": None, "split": "train", "shuffle": False, "num_epochs": 1} | settings
    return list(seqio.get_mixture_or_task(name).get_dataset(**settings).as_numpy_iterator())


def test_encoding_equals_the_corpus_encoding_in_eight_languages(vocabulary, xor_path, xor):
    questions = {q.id: q for q in readers.read_xor(xor_path)}
    seen = set()
    for language in TEXTS:
        for example in examples(f"{xor}_{language}"):
            q = questions[example["id"].decode()]
            seen.add(q.id)
            assert example["inputs"].tolist() == encode_question(vocabulary, q.text, q.language)
            answers = [encode_answer(vocabulary, answer) for answer in q.answers]
            assert [row[row != 0].tolist() for row in example["answers"]] == answers
            assert example["targets"].tolist() == (answers[0] if answers else [])
            assert example["language"].decode() == language
    assert seen == questions.keys()
    lengths = [len(e["inputs"]) for e in examples(f"{xor}_te")]
    assert max(lengths) == 50 and max(len(e["targets"]) for e in examples(f"{xor}_te")) == 50


def test_a_shorter_length_keeps_the_end_of_sequence(xor):
    cut = examples(f"{xor}_te", sequence_length={"inputs": 7, "targets": 5})
    whole = examples(f"{xor}_te")
    for a, b in zip(cut, whole, strict=True):
        assert a["inputs"].tolist() == b["inputs"][:7].tolist()
        assert a["targets"].tolist() == ([*b["targets"][:4], 1] if len(b["targets"]) > 5 else b["targets"].tolist())


def test_mixture_rates_have_exponent_half(xor):
    import seqio

    mixture = seqio.MixtureRegistry.get(xor)
    rates = {task.name: mixture.get_rate(task) for task in seqio.get_subtasks(mixture)}
    assert rates == {f"{xor}_{language}": pytest.approx((i + 1) ** 0.5) for i, language in enumerate(TEXTS)}


def test_mixture_feeds_a_seqio_converter(xor):
    import seqio

    dataset = seqio.get_dataset(
        mixture_or_task_name=xor,
        task_feature_lengths={"inputs": 50, "targets": 50},
        dataset_split="train",
        shuffle=True,
        num_epochs=1,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        seed=0,
    )
    example = next(dataset.as_numpy_iterator())
    assert example["encoder_input_tokens"].shape == example["decoder_target_tokens"].shape == (50,)


def test_iterator_can_be_saved_and_resumed(xor, tmp_path):
    import seqio
    import tensorflow as tf

    def iterator():
        task = seqio.get_mixture_or_task(f"{xor}_te")
        return iter(task.get_dataset(sequence_length=None, split="train", shuffle=True, seed=1, num_epochs=2))

    first = iterator()
    for _ in range(5):
        next(first)
    saved = tf.train.Checkpoint(it=first).write(str(tmp_path / "it"))
    rest = [e["id"].numpy() for e in first]
    second = iterator()
    tf.train.Checkpoint(it=second).read(saved).assert_consumed()
    assert [e["id"].numpy() for e in second] == rest and len(rest) == 11


def test_registering_twice_is_a_no_op_and_otherwise_an_error(xor, xor_path, vocabulary):
    assert tasks.register_xor("test_xor", str(xor_path), str(vocabulary.path)) == xor
    with pytest.raises(InputError, match="'test_xor' is registered already, with other arguments"):
        tasks.register_xor("test_xor", xor_path, vocabulary.path, exponent=1.0)
    with pytest.raises(InputError, match="'test_xor_ar' is the name of another task"):
        tasks.register_xor("test_xor_ar", xor_path, vocabulary.path)


def test_table_from_a_mixture_is_the_table_of_its_questions(vocabulary, xor_path, xor):
    questions = sorted(readers.read_xor(xor_path), key=lambda q: q.language)
    own = np.arange(len(questions)) % 5 - 1
    from_task = QuestionTable.from_task(xor, own_passages=own)
    assert from_task.fingerprint == QuestionTable.from_questions(questions, vocabulary, own_passages=own).fingerprint


def test_table_of_an_unknown_task(xor):
    with pytest.raises(InputError, match=r"task: no task or mixture 'test_xxr'; did you mean 'test_xor'"):
        QuestionTable.from_task("test_xxr")
    with pytest.raises(InputError, match="test_xor: no split 'dev'; known: train"):
        QuestionTable.from_task(xor, split="dev")


def test_stage1_carries_english(tmp_path, vocabulary):
    path = tmp_path / "p.tsv"
    path.write_text("fi-1\tWhat is _X_?\tMikä on Helsinki?\tHelsinki\nru-1\twhat\tкакой\t1812\n", encoding="utf-8")
    table = QuestionTable.from_task(tasks.register_stage1("test_stage1", path, vocabulary.path))
    assert table.fingerprint == QuestionTable.from_questions(readers.read_parallel(path), vocabulary).fingerprint
    assert (table.text(0), table.english(0)) == ("Mikä on _X_?", "What is _X_?")
    assert table.english_tokens[0].tolist() == encode_question(vocabulary, "What is _X_?", "en")


def test_parallel_lines(tmp_path, vocabulary):
    for name, text in (("en", "who\n"), ("fi", "kuka\n"), ("ru", "кто\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = {language: (tmp_path / "en", tmp_path / language) for language in ("fi", "ru")}
    for _ in range(2):  # the second is a no-op
        name = tasks.register_parallel_lines("test_lines", paths, vocabulary.path)
    table = QuestionTable.from_task(name)
    assert [table.text(row) for row in range(2)] == ["kuka", "кто"] and len(table.answer_tokens) == 0


def test_stage2_nq_and_mkqa_by_gin(tmp_path, vocabulary):
    (tmp_path / "a.tsv").write_text("ko-1\t누가\tHelsinki\nen-1\twho\t1812\n", encoding="utf-8")
    (tmp_path / "nq.csv").write_text("who\t['Helsinki']\n", encoding="utf-8")
    record = {"example_id": 5, "queries": {"fi": "kuka", "ko": "누가"}}
    record["answers"] = {language: [{"type": "entity", "text": "Helsinki"}] for language in ("fi", "ko")}
    (tmp_path / "mkqa.jsonl.gz").write_bytes(gzip.compress(json.dumps(record).encode()))
    with gin.unlock_config():
        gin.parse_config(f"""
            tasks.register_stage2.path = '{tmp_path}/a.tsv'
            tasks.register_stage2.name = 'test_stage2'
            tasks.register_nq.path = '{tmp_path}/nq.csv'
            tasks.register_nq.name = 'test_nq'
            tasks.register_nq.dev_path = '{tmp_path}/nq.csv'
            tasks.register_mkqa.path = '{tmp_path}/mkqa.jsonl.gz'
            tasks.register_mkqa.name = 'test_mkqa'
            tasks.register_mkqa.languages = ('fi', 'ko')
            tasks.register_stage2.vocabulary_path = '{vocabulary.path}'
            tasks.register_nq.vocabulary_path = '{vocabulary.path}'
            tasks.register_mkqa.vocabulary_path = '{vocabulary.path}'
        """)
    assert [e["question"].decode() for e in examples(tasks.register_stage2() + "_ko")] == ["누가"]
    assert len(examples(tasks.register_nq() + "_en", split="validation")) == 1
    assert [e["id"].decode() for e in examples(tasks.register_mkqa() + "_fi", split="test")] == ["fi-5"]
    gin.clear_config()


def test_bad_file_is_named_when_registering(tmp_path, vocabulary):
    path = tmp_path / "p.tsv"
    path.write_text("fi-1\twho\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"p\.tsv:1: 2 columns instead of 4"):
        tasks.register_stage1("test_bad", path, vocabulary.path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="test_bad: there is no question"):
        tasks.register_stage1("test_bad", path, vocabulary.path)


@pytest.mark.parametrize("builder", ["xor_tydi_qa/retrieve", "mkqa"])
def test_tfds_builders_hold_what_the_files_hold(builder, tmp_path, xor_path):
    from class_jax.tasks import benchmarks

    if builder == "mkqa":
        languages = readers.MKQA_LANGUAGES
        record = {"example_id": 5, "queries": dict.fromkeys(languages, "who?")}
        record["answers"] = {language: [{"type": "entity", "text": language}] for language in languages}
        (tmp_path / "mkqa.jsonl").write_text(json.dumps(record), encoding="utf-8")
        split, expected = "test", list(readers.read_mkqa(tmp_path / "mkqa.jsonl"))
    else:
        (tmp_path / xor_path.name).write_bytes(xor_path.read_bytes())
        split, expected = "train", list(readers.read_xor(xor_path))
    with pytest.raises(InputError, match=f"{builder} is not prepared here"):
        benchmarks.splits_of(builder, tmp_path / "tfds")
    benchmarks.prepare(builder, tmp_path, tmp_path / "tfds")
    assert benchmarks.splits_of(builder, tmp_path / "tfds") == [split]
    assert list(benchmarks.read_benchmark(builder, tmp_path / "tfds", split)) == expected


def test_a_prepared_benchmark_becomes_a_task(tmp_path, vocabulary):
    from class_jax.tasks import benchmarks

    for name, question in (("xor_train_full.jsonl", "mikä"), ("xor_dev_full_v1_1.jsonl", "kuka")):
        record = {"id": question, "question": question, "answers": ["Helsinki"], "lang": "fi"}
        (tmp_path / name).write_text(json.dumps(record), encoding="utf-8")
    benchmarks.prepare("xor_tydi_qa/full", tmp_path, tmp_path / "tfds")
    name = tasks.register_benchmark("test_tfds", "xor_tydi_qa/full", tmp_path / "tfds", vocabulary.path)
    assert [QuestionTable.from_task(name, split).text(0) for split in ("train", "validation")] == ["mikä", "kuka"]


def test_tfds_bad_input(tmp_path):
    from class_jax.tasks import benchmarks

    with pytest.raises(InputError, match="unknown benchmark 'mkqa/full'"):
        benchmarks.splits_of("mkqa/full", tmp_path)
    (tmp_path / "xor_train_full.jsonl").write_text('{"id": "1"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"xor_train_full\.jsonl:1: question: missing key"):
        benchmarks.prepare("xor_tydi_qa/full", tmp_path, tmp_path / "tfds")
    with pytest.raises(InputError, match=r"none of xor_train_retrieve"):
        benchmarks.prepare("xor_tydi_qa/retrieve", tmp_path, tmp_path / "tfds")


def test_importing_tasks_does_not_import_tensorflow():
    code = "import sys, class_jax.tasks; assert not {'tensorflow', 'seqio'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(tasks.__file__).parents[1])
