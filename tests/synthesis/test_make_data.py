# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax make-data`: from a gin file and dumps to files, counts and an exit status."""

import contextlib
import re

import pytest
import tiny_run
import typer
from tiny_dump import page, site
from typer.testing import CliRunner

from class_jax.commands.make_data import make_data as command
from class_jax.common.files import read_json
from class_jax.corpus.passages import read_passages
from class_jax.corpus.wikipedia.make_corpus import find_dumps, find_tables
from class_jax.errors import InputError
from class_jax.questions.readers import TRAINING_LANGUAGES, XOR_LANGUAGES
from class_jax.synthesis.count_table import CountRow, stage_count_rows
from class_jax.synthesis.make_data import TranslatorConfig, read_configuration

for module in ("apache_beam", "mwparserfromhell", "icu4py"):
    pytest.importorskip(module)

GIN = """
from __gin__ import dynamic_registration

from class_jax.corpus.wikipedia import make_corpus
from class_jax.synthesis import make_data

make_data.MakeDataConfig:
  dumps = {{'en': '{dump}'}}
  corpus = @make_corpus.CorpusConfig()

make_corpus.CorpusConfig.words = 20
"""


def app():
    made = typer.Typer()
    made.command()(command)
    return made


def written(tmp_path, tail="</mediawiki>"):
    text = site() + page("A", "One two. " * 20) + page("B", "#REDIRECT [[A]]", redirect="A") + tail
    (tmp_path / "d.xml").write_text(text)
    (tmp_path / "c.gin").write_text(GIN.format(dump=tmp_path / "d.xml"))
    return str(tmp_path / "c.gin")


@pytest.mark.parametrize(("tail", "status"), [("</mediawiki>", 0), ("<page><title>C</title>", 3)])
def test_the_command(tmp_path, tail, status):
    out = tmp_path / "work"
    arguments = ["--config", written(tmp_path, tail), "--out", str(out), "--workers", "1"]
    result = CliRunner().invoke(app(), arguments)
    assert result.exit_code == status, result.output
    assert re.search(r"^ +articles +1 +en 1", result.output, re.MULTILINE), result.output
    assert re.search(r"^ +redirects +1 +en 1", result.output, re.MULTILINE) and "MB/s per core" in result.output
    assert read_json(out / "counts.json")["pages/en"]["articles"] == 1
    assert [len(p.text.split()) for p in read_passages(out / "passages" / "passages.tsv")] == [20, 20]
    assert "words = 20" in (out / "config.gin").read_text()
    if status:
        assert "damaged input: pages/en: cut_off 1" in result.output
        assert "the file ends within a page" in (out / "pages/en/rejects-00000-of-00001.tsv").read_text()


def test_settings_of_the_command_come_before_the_file(tmp_path):
    config = read_configuration([written(tmp_path)], [], {"workers": 3, "runner": None})
    assert (config.runner.workers, config.runner.runner, config.corpus.words) == (3, "direct", 20)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("make_data.MakeDataConfig.dump = 1", r"MakeDataConfig.*'dumps'"),
        ("make_corpus.CorpusConfig.word = 1", r"CorpusConfig.*'words'"),
        ("make_data.MakeDataConfig.langlinks = {'fi': 'x'}", "langlinks: language fi: "),
    ],
)
def test_bad_settings_are_named(tmp_path, binding, words):
    with pytest.raises(InputError, match=words):
        assert read_configuration([written(tmp_path)], [binding]).wikis


STEPS = """
from class_jax.synthesis.stage2 import anchors
from class_jax.synthesis.stage1 import pairs
from class_jax.synthesis.stage1 import parallel
from class_jax.synthesis.stage2 import questions

make_data.MakeDataConfig.mining = @pairs.MiningConfig()
make_data.MakeDataConfig.anchors = @anchors.AnchorConfig()
make_data.MakeDataConfig.parallel = @parallel.ParallelConfig()
make_data.MakeDataConfig.questions = @questions.QuestionConfig()
"""


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("make_data.MakeDataConfig.anchors = None", "mining: language ar: has no dump"),
        ("make_data.MakeDataConfig.mining = None", "anchors: language ar: has no dump"),
        (
            "make_data.MakeDataConfig.mining = None\nmake_data.MakeDataConfig.anchors = None",
            r"MakeDataConfig.parallel: needs mining; set mining too",
        ),
    ],
)
def test_what_later_steps_lack_is_reported_before_any_work(tmp_path, binding, words):
    file = written(tmp_path)
    with open(file, "a") as f:
        f.write(STEPS)
    result = CliRunner().invoke(app(), ["--config", file, "--out", str(tmp_path / "w"), "--gin", binding])
    assert isinstance(result.exception, InputError)
    assert re.search(words, str(result.exception)) and not (tmp_path / "w").exists()


def test_counts_of_all_languages_come_together():
    counts = {
        "pages/fi": {"articles": 2, "bytes": 9, "rejected/no_text": 1},
        "pages/en": {"articles": 3},
        "stage2": {"rejected/format/fi": 4, "drawn/fi": 5, "queries_of_type/GPE": 6},
    }
    assert stage_count_rows(counts, ("en", "fi")) == [
        CountRow("pages", "articles", 5, {"fi": 2, "en": 3}),
        CountRow("pages", "rejected/no_text", 1, {"fi": 1}),
        CountRow("stage2", "drawn", 5, {"fi": 5}),
        CountRow("stage2", "queries_of_type/GPE", 6, {}),
        CountRow("stage2", "rejected/format", 4, {"fi": 4}),
    ]


def test_a_translator_is_one_of_three():
    for settings in ({}, {"model": "m", "dictionaries": "d"}):
        with pytest.raises(InputError, match=r"^TranslatorConfig: "):
            TranslatorConfig(**settings)


def touch(folder, *names):
    for name in names:
        (folder / name).touch()
    return [str(folder / name) for name in names]


def test_dumps_are_found_by_their_names(tmp_path):
    stem = "enwiki-20260101-pages-articles"
    multi, whole, *parts, _, links, _ = touch(
        tmp_path,
        f"{stem}-multistream.xml.bz2",
        f"{stem}.xml.bz2",
        f"{stem}2.xml-p41243p151573.bz2",
        f"{stem}10.xml-p5p6.bz2",
        f"{stem}2.xml-p9p10.bz2",
        f"{stem}-multistream-index.txt.bz2",
        "enwiki-20260101-langlinks.sql.gz",
        "simplewiki-20260101-pages-articles.xml",
    )
    assert find_dumps(tmp_path, ["en"]) == {"en": (multi,)}
    assert find_tables(tmp_path, ["en"], "langlinks") == {"en": links}
    (tmp_path / multi).unlink()
    assert find_dumps(str(tmp_path), ["en"]) == {"en": (whole,)}
    (tmp_path / whole).unlink()
    assert find_dumps(tmp_path, ["en"]) == {"en": (parts[2], parts[0], parts[1])}
    touch(tmp_path, "enwiki-20260101-pages-articles.xml", "enwiki-20260201-pages-articles.xml.bz2")
    with pytest.raises(InputError, match=r"enwiki-20260101.*, enwiki-20260201"):
        find_dumps(tmp_path, ["en"])
    with pytest.raises(InputError, match=r"fiwiki-\*-pages-articles\.xml"):
        find_dumps(tmp_path, ["fi"])
    with pytest.raises(InputError, match=r"enwiki-\*-page\.sql"):
        find_tables(tmp_path, ["en"], "page")
    with pytest.raises(InputError, match="absent: "):
        find_tables(tmp_path / "absent", ["en"], "page")


@pytest.mark.parametrize(
    ("name", "languages", "asked", "sources"),
    [
        ("encyclopaedia", XOR_LANGUAGES, XOR_LANGUAGES, ("langlinks", "page")),
        ("paper", TRAINING_LANGUAGES, XOR_LANGUAGES, ("langlinks",)),
    ],
)
def test_the_files_of_gin_data_resolve(tmp_path, name, languages, asked, sources):
    for language in ("en", *languages):
        touch(tmp_path, f"{language}wiki-pages-articles.xml.bz2", *(f"{language}wiki-{s}.sql.gz" for s in sources))
    with contextlib.chdir(tiny_run.REPOSITORY):
        text = (tiny_run.REPOSITORY / "gin" / "data" / f"{name}.gin").read_text(encoding="utf-8")
        for part in ("Reproduces", "Command", "Expected", "Must be set", "Commonly overridden"):
            assert re.search(rf"^# {part}: \S", text, flags=re.MULTILINE), part
        config = read_configuration(
            [f"gin/data/{name}.gin"], [f"DUMPS = '{tmp_path}'", "MODEL = 'm'", "META_MODEL = 'l'"]
        )
    config.check(tmp_path)
    assert list(config.dumps) == ["en", *languages] and list(config.langlinks) == ["en", *languages]
    assert set(config.mining.languages) == set(languages) and config.anchors.languages == asked
    assert config.questions.languages == asked and len(config.wikis) == 1 + len(languages)
    assert config.parallel is not None and config.lists is not None
    if name == "paper":
        assert config.corpus.words == 100 and config.questions.target == 146_000
        assert config.mining.threshold == 1.5 and config.mining.thresholds["ja"] == 1.65
        assert config.parallel.exponent == 0.5 and config.mining.embedder.kind == "simcse"
        assert config.questions.transformer == "endpoint"


def test_a_missing_gin_file(tmp_path):
    with pytest.raises(InputError, match="no such gin file"):
        read_configuration([str(tmp_path / "absent.gin")])
