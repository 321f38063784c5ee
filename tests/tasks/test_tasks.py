# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""seqio tasks, mixtures and TFDS builders over tiny files in the public formats."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

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
    records = []
    with open(path, "w", encoding="utf-8") as f:
        for i, (language, text) in enumerate(TEXTS.items()):
            for j in range(i + 1):
                long = " ".join([text] * (1 + 20 * (j == 1)))  # far more than 50 tokens
                answers = [[], ["Helsinki"], ["Helsinki " * 40, "1812"]][j % 3]
                record = {"id": f"{i}/{j}", "question": long, "answers": answers, "lang": f" {language}"}
                records.append(json.dumps(record) + "\n")
        random.Random(0).shuffle(records)  # languages are mixed, as in no public file that is sorted by them
        f.writelines(records)
    return path


@pytest.fixture(scope="module")
def xor(vocabulary, xor_path):
    return tasks.Mixture("test_xor", {"train": readers.read_xor(xor_path)}).register(vocabulary.path)


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


def test_a_longer_length_is_followed_too(xor):
    lengths = {len(e["inputs"]) for e in examples(f"{xor}_te", sequence_length={"inputs": 60, "targets": 60})}
    assert max(lengths) == 60


def test_registering_a_name_again_replaces_it(vocabulary, tmp_path):
    import seqio

    for line, language in (("fi-1\tkuka\tHelsinki", "fi"), ("ko-1\t누가\tHelsinki", "ko")):
        (tmp_path / "a.tsv").write_text(f"{line}\n", encoding="utf-8")
        mixture = tasks.Mixture("test_again", {"train": readers.read_anchor_questions(tmp_path / "a.tsv")})
        assert mixture.register(vocabulary.path) == "test_again"
        assert [task.name for task in seqio.get_subtasks(seqio.MixtureRegistry.get("test_again"))] == [
            f"test_again_{language}"
        ]
    assert "test_again_fi" not in seqio.TaskRegistry.names()


def test_the_name_of_another_task_is_refused_and_stays_as_it_was(xor, xor_path, vocabulary):
    import seqio

    task = seqio.TaskRegistry.get(f"{xor}_ar")
    with pytest.raises(InputError, match=f"name: .*'{xor}_ar'"):
        tasks.Mixture(f"{xor}_ar", {"train": readers.read_xor(xor_path)}).register(vocabulary.path)
    assert seqio.TaskRegistry.get(f"{xor}_ar") is task and f"{xor}_ar_ar" not in seqio.TaskRegistry.names()


def test_a_mixture_is_a_value(xor_path):
    one, same = (tasks.mixture("xor_full", path) for path in (xor_path, str(xor_path)))
    assert one == same and hash(one) == hash(same) and repr(one) == repr(same)
    assert str(xor_path) in repr(one) and "needs_answers=True" in repr(one)
    assert one != tasks.mixture("xor_retrieve", xor_path) and one != tasks.mixture("xor_full", "other.jsonl")


def test_rows_are_in_the_order_of_the_file(vocabulary, xor_path, xor):
    questions = list(readers.read_xor(xor_path))
    assert [q.language for q in questions] != sorted(q.language for q in questions)
    own = np.arange(len(questions)) % 5 - 1
    from_task = QuestionTable.from_task(xor, own_passages=own)
    assert from_task.fingerprint == QuestionTable.from_questions(questions, vocabulary, own_passages=own).fingerprint
    with pytest.raises(InputError, match="own_passages: "):
        QuestionTable.from_task(xor, own_passages=own[1:])


@pytest.mark.parametrize(("question_tokens", "answer_tokens"), [(7, 3), (60, 60)])
def test_lengths_are_those_of_the_plain_table(vocabulary, xor_path, xor, question_tokens, answer_tokens):
    given = {"max_question_tokens": question_tokens, "max_answer_tokens": answer_tokens}
    plain = QuestionTable.from_questions(readers.read_xor(xor_path), vocabulary, **given)
    assert plain.question_tokens.lengths.max() == question_tokens
    assert plain.answer_tokens.lengths.max() == answer_tokens
    assert QuestionTable.from_task(xor, **given).fingerprint == plain.fingerprint


def test_a_mixture_of_mixtures_has_their_questions_one_after_the_other(vocabulary, xor_path, xor, tmp_path):
    import seqio

    (tmp_path / "a.tsv").write_text("ko-1\t누가\tHelsinki\nen-1\twho\t1812\n", encoding="utf-8")
    other = tasks.Mixture("test_anchors", {"train": readers.read_anchor_questions(tmp_path / "a.tsv")})
    seqio.MixtureRegistry.add("test_both", [(xor, 1.0), (other.register(vocabulary.path), 2.0)])
    table = QuestionTable.from_task("test_both")
    questions = [*other.splits["train"], *readers.read_xor(xor_path)]
    assert table.fingerprint == QuestionTable.from_questions(questions, vocabulary).fingerprint


def test_table_of_an_unknown_task(xor):
    with pytest.raises(InputError, match=r"task: .*'test_xxr'.*'test_xor'"):
        QuestionTable.from_task("test_xxr")
    with pytest.raises(InputError, match=r"test_xor: .*'dev'.*train"):
        QuestionTable.from_task(xor, split="dev")


def test_a_task_of_other_features_is_refused(vocabulary):
    import seqio
    import tensorflow as tf

    def dataset(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["kuka"], "targets": ["Helsinki"]})

    features = dict.fromkeys(("inputs", "targets"), seqio.Feature(seqio.SentencePieceVocabulary(str(vocabulary.path))))
    source = seqio.FunctionDataSource(dataset, splits=("train",))
    seqio.TaskRegistry.add("test_foreign", source, features, [seqio.preprocessors.tokenize])
    with pytest.raises(InputError, match=r"test_foreign: .*'answers'"):
        QuestionTable.from_task("test_foreign")


def test_bad_file_is_named_when_registering(tmp_path, vocabulary):
    path = tmp_path / "p.tsv"
    mixture = tasks.mixture("class_stage1", path)
    with pytest.raises(InputError, match=r"p\.tsv: "):
        mixture.register(vocabulary.path)
    path.write_text("fi-1\twho\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"p\.tsv:1: ") as error:
        mixture.register(vocabulary.path)
    assert "\n" not in str(error.value)
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="class_stage1: "):
        mixture.register(vocabulary.path)


def test_a_bad_file_leaves_the_registered_mixture_as_it_was(tmp_path, vocabulary):
    path = tmp_path / "p.tsv"
    path.write_text("fi-1\tWhat is it?\tMikä se on?\tHelsinki\n", encoding="utf-8")
    tasks.Mixture("test_kept", {"train": readers.read_parallel(path)}).register(vocabulary.path)
    with pytest.raises(InputError, match=r"absent\.tsv"):
        tasks.Mixture("test_kept", {"train": readers.read_parallel(tmp_path / "absent.tsv")}).register(vocabulary.path)
    assert len(QuestionTable.from_task("test_kept")) == 1


def test_without_seqio_the_error_says_what_to_install(tmp_path, vocabulary, monkeypatch):
    monkeypatch.setitem(sys.modules, "seqio", None)
    with pytest.raises(InputError, match=r"tasks: .*class-jax\[train\]"):
        tasks.mixture("class_stage1", tmp_path / "p.tsv").register(vocabulary.path)


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
    questions = benchmarks.read_benchmark(builder, tmp_path / "tfds", split)
    assert list(questions) == list(questions) == expected


def test_a_prepared_benchmark_becomes_a_task(tmp_path, vocabulary):
    from class_jax.tasks import benchmarks

    for name, question in (("xor_train_full.jsonl", "mikä"), ("xor_dev_full_v1_1.jsonl", "kuka")):
        record = {"id": question, "question": question, "answers": ["Helsinki"], "lang": "fi"}
        (tmp_path / name).write_text(json.dumps(record), encoding="utf-8")
    benchmarks.prepare("xor_tydi_qa/full", tmp_path, tmp_path / "tfds")
    mixture = tasks.benchmark("test_tfds", "xor_tydi_qa/full", tmp_path / "tfds")
    name = mixture.register(vocabulary.path)
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


def test_tensorflow_is_imported_where_a_mixture_is_registered_and_not_before(tmp_path):
    code = (
        "import sys; from class_jax import tasks; from class_jax.training import data; tasks.mixture('nq', 'nq.csv');"
    )
    code += "assert not {'tensorflow', 'seqio', 'tensorflow_datasets'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
