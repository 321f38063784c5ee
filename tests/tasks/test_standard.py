# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Each named mixture: what it reads, its rates, splits and features, and that it gives the plain reader's table."""

import gzip
import json
import re

import pytest

import gin

pytest.importorskip("seqio")

from class_jax import tasks
from class_jax.configuration.gin_files import parse
from class_jax.corpus.vocabulary import Vocabulary, train_vocabulary
from class_jax.errors import InputError
from class_jax.questions import readers, real_pairs, selection
from class_jax.questions.table import QuestionTable

pytestmark = pytest.mark.tensorflow

PAIRS = [
    "fi-1\tWhat is _X_?\tMikä on Helsinki 1812?\t1812",
    "ru-1\twhat\tкакой\t1812",
    "fi-2\twho\tkuka\tHelsinki",
    "de-1\twhere\two\tBonn",
    "ru-2\twho\tкто\tHelsinki",
]
ANCHORS = ["ko-1\t누가\tHelsinki", "en-1\twho\t1812", "ko-2\t언제\t1812", "17\twhere\tBonn"]
XOR = [(f"q{i}", f"kysymys {i}", (" ar", "fi", "te")[i * 5 % 3], ["Helsinki", f"{i}"][: 1 + i % 2]) for i in range(12)]
STAGE1 = ("class_stage1", "class_stage1_code_switching", "class_stage1_translated", "demo_stage1")
STAGE2 = ("class_stage2", "class_stage2_cloze", "demo_stage2")
ANSWERED = ("xor_retrieve", "xor_full", "demo_reader")
TWO_FILES = ("xor_full_augmented", "demo_reader_augmented")


def xor_lines(rows):
    keys = ("id", "question", "lang", "answers")
    return [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standard")
    translated = [(f"t-{id}", text, "ko", answers) for id, text, _, answers in XOR[:3]]
    written = {
        "pairs.tsv": PAIRS,
        "anchors.tsv": ANCHORS,
        "nq.csv": ["who\t['Helsinki', '1812']", "kuka\t['Bonn']\tfi", "where\t['Bonn']"],
        "xor.jsonl": xor_lines(XOR),
        "translated.jsonl": xor_lines(translated),
        "dev.jsonl": xor_lines([("d1", "milloin", "fi", ["1812"])]),
        "unanswered.jsonl": xor_lines([("d1", "milloin", "fi", [])]),
    }
    for name, lines in written.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    languages = readers.MKQA_LANGUAGES
    record = {"example_id": 5, "queries": {language: f"kuka {language}" for language in languages}}
    record["answers"] = {language: [{"type": "entity", "text": "Helsinki"}] for language in languages}
    (folder / "mkqa.jsonl.gz").write_bytes(gzip.compress(json.dumps(record).encode()))
    _write_real(folder / "real")
    train_vocabulary([*PAIRS, *ANCHORS, "question: kysymys Helsinki"] * 4, folder / "v.model", 305, num_threads=1)
    return folder


def _write_real(folder):
    (folder / "xor_parallel").mkdir(parents=True)
    (folder / "xquad").mkdir()
    for language in real_pairs.PARALLEL_LANGUAGES:
        for code in (language, "en"):
            path = folder / "xor_parallel" / f"{language}-en.{code}"
            path.write_text(f"kuka {code}\nmikä {code}\n", encoding="utf-8")
    for language in ("en", *real_pairs.XQUAD_LANGUAGES):
        qas = [{"id": f"id{i}", "question": f"who {language} {i}", "answers": [{"text": "Bonn"}]} for i in range(9)]
        document = {"data": [{"paragraphs": [{"context": "Bonn", "qas": qas}]}]}
        (folder / "xquad" / f"xquad.{language}.json").write_text(json.dumps(document), encoding="utf-8")


def given(name):
    """The files of a name, and its further settings."""
    if name in (*STAGE1, "class_stage1_7_languages"):
        return "pairs.tsv", {}
    if name in STAGE2:
        return "anchors.tsv", {}
    if name in TWO_FILES:
        return ("xor.jsonl", "translated.jsonl"), {}
    if name.endswith("_shots"):
        return "xor.jsonl", {"count": 3}
    if name == "mkqa":
        return "mkqa.jsonl.gz", {"languages": ("ko", "fi")}
    return {"nq": "nq.csv", "real_parallel": "real"}.get(name, "xor.jsonl"), {}


def plain(name, folder):
    """What a name means, read without seqio."""
    xor = readers.read_xor(folder / "xor.jsonl")
    if name in STAGE1:
        return list(readers.read_parallel(folder / "pairs.tsv"))
    if name in STAGE2:
        return list(readers.read_anchor_questions(folder / "anchors.tsv"))
    if name in ANSWERED:
        return list(xor)
    if name in TWO_FILES:
        return [*xor, *readers.read_xor(folder / "translated.jsonl")]
    others = {
        "class_stage1_7_languages": lambda: [
            q for q in readers.read_parallel(folder / "pairs.tsv") if q.language != "de"
        ],
        "nq": lambda: readers.read_nq(folder / "nq.csv"),
        "mkqa": lambda: readers.read_mkqa(folder / "mkqa.jsonl.gz", ("ko", "fi")),
        "xor_retrieve_shots": lambda: selection.sample(xor, 3),
        "xor_full_shots": lambda: selection.sample(xor, 3, per_language=True),
        "real_parallel": lambda: real_pairs.training_pairs(folder / "real"),
    }
    return list(others[name]())


def mixture(name, folder, **more):
    of, settings = given(name)
    paths = folder / of if isinstance(of, str) else [folder / file for file in of]
    return tasks.mixture(name, paths, **settings, **more)


@pytest.mark.parametrize("name", tasks.STANDARD)
def test_each_name_gives_the_plain_readers_table(name, files):
    """Row by row and bit by bit, whatever the order of its tasks: the batches of a run are the same."""
    import seqio

    split = "test" if name == "mkqa" else "train"
    assert mixture(name, files).register(files / "v.model") == name
    questions = plain(name, files)
    table = QuestionTable.from_task(name, split, max_question_tokens=6)
    expected = QuestionTable.from_questions(questions, Vocabulary.load(files / "v.model"), max_question_tokens=6)
    assert table.fingerprint == expected.fingerprint
    found = seqio.get_mixture_or_task(name)
    counts = {code: sum(q.language == code for q in questions) for code in {q.language for q in questions}}
    assert {t.name: t.num_input_examples(split) for t in found.tasks} == {f"{name}_{k}": n for k, n in counts.items()}
    for task in found.tasks:
        assert found.get_rate(task) == pytest.approx(task.num_input_examples(split) ** 0.5)
        assert set(task.splits) == {split}
        assert set(task.output_features) == {"inputs", "targets", "answers", "english"}


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
def test_rates_say_what_the_sampler_does(files, exponent):
    """`DataConfig.language_exponent` is handed to both."""
    import seqio

    from class_jax.training.sampler import LanguageSampler

    mixture("xor_full", files).register(files / "v.model", exponent)
    found = seqio.get_mixture_or_task("xor_full")
    table = QuestionTable.from_task("xor_full")
    sampler = LanguageSampler(table.language_codes, seed=0, exponent=exponent)
    shares = {table.languages[code]: share for code, share in zip(sampler.codes, sampler.shares, strict=True)}
    rates = {task.name.removeprefix("xor_full_"): found.get_rate(task) for task in found.tasks}
    assert {code: rate / sum(rates.values()) for code, rate in rates.items()} == pytest.approx(shares)


def test_development_questions_are_the_split_validation(files):
    name = mixture("nq", files, dev_files=files / "nq.csv").register(files / "v.model")
    assert QuestionTable.from_task(name, "validation").id(2) == "2"
    name = mixture("xor_full", files).register(files / "v.model")
    with pytest.raises(InputError, match=r"xor_full: .*'validation'"):
        QuestionTable.from_task(name, "validation")


def test_training_questions_must_have_answers(files):
    with pytest.raises(InputError, match=r"unanswered\.jsonl:1: answers: "):
        tasks.mixture("xor_retrieve", files / "unanswered.jsonl").register(files / "v.model")


def test_settings_of_the_reader(files):
    every, latin = (tasks.mixture("class_stage1", files / "pairs.tsv", mask=mask) for mask in ("all", "latin"))
    assert every != latin and "mask='latin'" in repr(latin)
    assert tasks.mixture("mkqa", files / "mkqa.jsonl.gz", languages=("fi",)).splits["test"] == readers.read_mkqa(
        str(files / "mkqa.jsonl.gz"), languages=("fi",)
    )


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (("class_stge1", "p.tsv"), {}, r"tasks\.mixture\.name: .*'class_stge1'.*'class_stage1'"),
        (("class_stage1", "p.tsv"), {"maks": "all"}, r"tasks\.mixture\.maks: class_stage1 .*'mask'"),
        (("xor_full", "x.jsonl"), {"count": 5}, r"tasks\.mixture\.count: xor_full "),
        (("xor_full_shots", "x.jsonl"), {}, r"tasks\.mixture.*'xor_full_shots'.*'count'"),
    ],
)
def test_errors_in_one_line_name_the_setting(arguments, settings, named):
    with pytest.raises(InputError) as error:
        tasks.mixture(*arguments, **settings)
    assert re.search(named, str(error.value)) and "\n" not in str(error.value)


def test_a_gin_file_picks_a_mixture_by_name(files):
    settings = ["MIXTURE = 'class_stage1'", "tasks.mixture.name = %MIXTURE", "tasks.mixture.files = %FILE"]
    settings.append(f"FILE = {str(files / 'pairs.tsv')!r}")
    (files / "run.gin").write_text(
        "from __gin__ import dynamic_registration\nfrom class_jax import tasks\n" + "\n".join(settings) + "\n"
    )
    for extra, expected in (
        ([], mixture("class_stage1", files)),
        (["MIXTURE = 'nq'", f"FILE = {str(files / 'nq.csv')!r}"], mixture("nq", files)),
        (["tasks.mixture.mask = 'latin'"], mixture("class_stage1", files, mask="latin")),
    ):
        parse([str(files / "run.gin")], extra)
        assert gin.get_configurable(tasks.mixture)() == expected
    gin.clear_config()
