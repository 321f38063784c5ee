# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The other sources of parallel queries: code-switching with dictionaries, and translation."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig
from class_jax.pipelines.stages import run_stage
from class_jax.questions.readers import read_parallel
from class_jax.synthesis.sources.entities import Entity
from class_jax.synthesis.stage1.cloze import ClozeQuery
from class_jax.synthesis.stage1.pairs import SentencePair
from class_jax.synthesis.stage1.parallel import ParallelConfig, code_switched, write_parallel
from class_jax.translation.dictionary import DictionaryTranslator, read_dictionary, replace_words

WORDS = {"river": ("joki", "virta"), "town": ("kaupunki",), "x": ("äks",), "_x_": ("väärin",)}


@pytest.fixture
def dictionaries(tmp_path):
    folder = tmp_path / "muse"
    folder.mkdir()
    (folder / "en-fi.txt").write_text("river joki\nriver virta\nThe\tse\ntown kaupunki\nriver joki\n", encoding="utf-8")
    (folder / "en-ru.txt").write_text("river река\n", encoding="utf-8")
    return folder


def _write_pairs(pipeline, out):
    """Two pairs a language, as the stage of mining leaves them."""
    import apache_beam as beam

    for language, other in (("fi", "Onar on joki."), ("ru", "Онар река.")):
        entities = (Entity(0, 4, "LOC"),)
        lines = [
            SentencePair(
                language, f"Onar is the river of a town, {i}!", other, 2.0 - i, entities, "Onar", ("1", i), ("2", i)
            )
            for i in range(2)
        ]
        out_prefix = str(out / language / "pairs")
        made = pipeline | f"pairs {language}" >> beam.Create([pair.to_json() for pair in lines])
        _ = made | f"write {language}" >> beam.io.WriteToText(out_prefix, file_name_suffix=".jsonl")


@pytest.fixture
def work(tmp_path):
    run_stage(tmp_path / "work", "pairs", _write_pairs, inputs={}, runner=RunnerConfig(workers=1), progress=False)
    return tmp_path / "work"


def test_dictionaries_as_published(dictionaries, tmp_path):
    assert read_dictionary(dictionaries / "en-fi.txt") == {
        "river": ("joki", "virta"),
        "the": ("se",),
        "town": ("kaupunki",),
    }
    (tmp_path / "bad.txt").write_text("river joki\nonly\n")
    with pytest.raises(InputError, match=r"bad\.txt:2: "):
        read_dictionary(tmp_path / "bad.txt")
    (tmp_path / "tabs.txt").write_text("New York\tUusi Jorvik\n")
    assert read_dictionary(tmp_path / "tabs.txt") == {"new york": ("Uusi Jorvik",)}
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="no words"):
        read_dictionary(tmp_path / "empty.txt")


def test_words_are_replaced_and_the_mask_stays():
    query = ClozeQuery("The RIVER of _X_, a town (river) x-river.", "Joki", "Onar", "LOC")
    switched = code_switched(query, WORDS, 1.0, random.Random(0))
    assert switched.english == query.english and switched.answer == "Onar"
    assert switched.other.startswith("The ") and ", a kaupunki (" in switched.other and "_X_" in switched.other
    assert "väärin" not in switched.other and "river" not in switched.other.lower().replace("x-river", "")
    assert code_switched(query, WORDS, 1.0, random.Random(0)) == switched
    drawn = {code_switched(query, WORDS, 1.0, random.Random(seed)).other for seed in range(20)}
    assert any("joki of" in other for other in drawn) and any("virta of" in other for other in drawn)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["river", "town", "Onar", "_X_", ",", "mill"]), max_size=12), st.floats(0.0, 1.0))
def test_replacing_properties(parts, ratio):
    text = " ".join(parts)
    found = replace_words(text, WORDS, ratio, random.Random(1), kept=("_X_",)).split()
    assert len(found) == len(parts)
    for before, after in zip(parts, found, strict=True):
        assert after == before or (before != "_X_" and after in WORDS[before])


def test_the_ratio_is_the_share_of_words_replaced():
    text = " ".join(["town"] * 2000)
    replaced = replace_words(text, WORDS, 0.3, random.Random(5)).split().count("kaupunki")
    assert 520 < replaced < 680


def test_queries_by_code_switching(work, dictionaries):
    config = ParallelConfig(source="code_switching", dictionaries=str(dictionaries))
    counts = write_parallel(work, config, progress=False)
    assert counts["queries/fi"] == counts["queries/ru"] == 2
    questions = {q.id: q for q in read_parallel(work / "stage1" / "parallel.tsv")}
    assert questions["ru-1"].english == "_X_ is the river of a town, 0!"
    assert questions["ru-1"].text == "_X_ is the река of a town, 0!"
    assert questions["fi-2"].text in (f"_X_ is se {word} of a kaupunki, 1!" for word in ("joki", "virta"))
    (dictionaries / "en-ru.txt").write_text("river поток\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"dictionaries\.ru"):
        write_parallel(work, config)
    (dictionaries / "en-ru.txt").unlink()
    with pytest.raises(InputError, match=r"en-ru\.txt: ru: "):
        write_parallel(work, config)


def test_queries_by_translation(work, dictionaries):
    translator = DictionaryTranslator(dictionaries)
    write_parallel(work, ParallelConfig(source="translation"), progress=False, translator=translator)
    questions = {q.id: q for q in read_parallel(work / "stage1" / "parallel.tsv")}
    # The whole sentence is translated; then the rule of the mined ones masks it, only in Latin script.
    assert questions["fi-1"].text == "_X_ is se joki of a kaupunki, 0!"
    rows = (work / "stage1" / "parallel.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[2] == "ru-1\t_X_ is the river of a town, 0!\tOnar is the река of a town, 0!\tOnar"


def test_settings_that_make_no_sense(work, tmp_path, dictionaries):
    with pytest.raises(InputError, match=r"^ParallelConfig\.dictionaries: "):
        ParallelConfig(source="code_switching")
    with pytest.raises(InputError, match=r"^ParallelConfig\.\w+: .*'mined'"):
        ParallelConfig(dictionaries="muse")
    with pytest.raises(InputError, match=r"^ParallelConfig\.ratio: "):
        ParallelConfig(source="code_switching", dictionaries="muse", ratio=0.0)
    with pytest.raises(InputError, match="needs a translator"):
        write_parallel(work, ParallelConfig(source="translation"))
    with pytest.raises(InputError, match="needs no translator"):
        write_parallel(work, translator=DictionaryTranslator(dictionaries))
    with pytest.raises(InputError, match="no dictionaries"):
        DictionaryTranslator(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"en-ko\.txt"):
        DictionaryTranslator(dictionaries).translate(["a"], "en", "ko")
