# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""From pages of five languages to stage-1 files: joins over language links, pairs, queries, passage lists."""

import dataclasses
import json

import linked_wiki
import numpy as np
import pytest
import tiny_model
import tiny_run

from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.corpus.passages import Passage, write_passages
from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig
from class_jax.questions.readers import read_parallel
from class_jax.refresh.lists import PassageLists
from class_jax.synthesis.sources.entities import RuleEntities
from class_jax.synthesis.sources.linked_pages import AnchorTarget, LinkedPage, title_key
from class_jax.synthesis.stage1.embedders import LinkEmbedder
from class_jax.synthesis.stage1.pairs import MiningConfig, SentencePair, mine_page_group, mine_pairs, sentence_links
from class_jax.synthesis.stage1.parallel import ParallelConfig, rank_pairs, read_pairs, write_parallel
from class_jax.synthesis.stage1.teacher_lists import english_passages, write_lists, write_model_lists
from class_jax.training.teacher import Bm25TeacherConfig, ModelTeacherConfig

CONFIG = MiningConfig(languages=("fi", "ru", "ar"))
HERE = RunnerConfig(workers=1)


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    linked_wiki.write_pages(work)
    return work, mine_pairs(work, CONFIG, HERE, progress=False)


def pairs_of(work, language):
    lines = [line for file in (work / "pairs" / language).glob("*.jsonl") for line in file.read_text().splitlines()]
    return {(p.english, p.other): p for p in map(SentencePair.from_json, lines)}


def test_pages_are_joined_over_own_backward_and_third_language_links(mined):
    work, counts = mined
    assert [counts[f"linked_pages/{language}"] for language in ("fi", "ru", "ar")] == [3, 2, 1]
    assert counts["linked_over/1_links"] == 5 and counts["linked_over/2_links"] == 1
    # "Yksin" links to an English page that is not there; Faluan's anchor, too, leads nowhere.
    assert counts["rejected/no_english_page"] == 1 and counts["language_links_to_nowhere"] == 1
    assert counts["anchors_to_nowhere"] == 1
    assert counts["rejected/page_without_sentences"] == 1 and counts["rejected/repeated_sentence"] == 1
    assert {p.hops for p in pairs_of(work, "ar").values()} == {2}
    assert {p.hops for language in ("fi", "ru") for p in pairs_of(work, language).values()} == {1}


def test_translations_are_mined_in_every_script(mined):
    work, counts = mined
    for language, other in (
        ("fi", "Kaivos avattiin 1288 ja suljettiin 1992."),
        ("ru", "Шахта открыта в 1288 и закрыта в 1992."),
        ("ar", "افتتح المنجم عام ١٢٨٨ وأغلق عام ١٩٩٢."),
    ):
        found = pairs_of(work, language)
        pair = found["Its copper mine opened in 1288 and closed in 1992.", other]
        assert pair.margin == max(p.margin for p in found.values() if p.other == other)
        assert len(found) == counts[f"pairs/{language}"] and pair.page == "Falun"
        assert [pair.english[e.start : e.end] for e in pair.entities] == ["1288", "1992"]
    # Linked names, mapped to English over the language links, and typed by their own pages.
    pair = pairs_of(work, "ru")["Carl Linnaeus married there in 1739.", "Линней женился там в 1739."]
    assert [(pair.english[e.start : e.end], e.type) for e in pair.entities] == [
        ("Carl Linnaeus", "PERSON"),
        ("1739", "DATE"),
    ]
    # Nothing in common but letters: no pair, whatever the margin.
    assert not any("kylmä" in other for _, other in pairs_of(work, "fi"))


def test_a_finished_stage_is_not_run_again_and_other_settings_are_refused(mined):
    work, counts = mined
    assert mine_pairs(work, CONFIG, HERE, progress=False) == counts
    with pytest.raises(InputError, match=r"config\.neighbours: .*4, not 2"):
        mine_pairs(work, dataclasses.replace(CONFIG, neighbours=2), HERE)
    with pytest.raises(InputError, match=r"pages/ko: ko: .*MiningConfig\.languages"):
        mine_pairs(work, dataclasses.replace(CONFIG, languages=("ko",)), HERE)
    with pytest.raises(InputError, match=r"^MiningConfig\.languages: "):
        MiningConfig(languages=("en", "fi"))


def test_stage_1_files(mined):
    work, counts = mined
    written = write_parallel(work, progress=False)
    questions = list(read_parallel(work / "stage1" / "parallel.tsv"))
    assert len(questions) == sum(written[f"queries/{language}"] for language in ("fi", "ru", "ar"))
    assert len(questions) == sum(n for key, n in written.items() if key.startswith("queries_of_type/"))
    assert [written[f"pairs/{language}"] for language in ("ar", "fi")] == [counts["pairs/ar"], counts["pairs/fi"]]
    finnish = [q for q in questions if q.language == "fi"]
    assert [q.id for q in finnish] == [f"fi-{n}" for n in range(1, len(finnish) + 1)]
    by_english = {(q.language, q.english): q for q in questions}
    query = by_english["fi", "Its copper mine opened in _X_ and closed in 1992."]
    assert query.text == "Kaivos avattiin _X_ ja suljettiin 1992." and query.answers == ("1288",)
    rows = (work / "stage1" / "parallel.tsv").read_text(encoding="utf-8")
    assert "Шахта открыта в 1288 и закрыта в 1992.\t1288\n" in rows  # not masked in the file: not in Latin script
    for question in questions:
        assert question.answers[0] not in question.english.replace("_X_", "").split()

    passages = [Passage("1", "Falun has a copper mine; it opened in 1288 and closed in 1992.", "Falun")]
    passages += [Passage("2", "Falun on kaupunki.", "Falun"), Passage("3", "Linnaeus married in Falun.", "Linnaeus")]
    write_passages(work / "passages" / "passages.tsv", passages)
    (work / "passages" / "passage_languages.tsv").write_text("id\tlanguage\n1\ten\n2\tfi\n3\ten\n")
    found = write_lists(work, Bm25TeacherConfig(list_length=2), progress=False)
    assert found == {"english_questions": len({q.english for q in questions}), "lists": len(questions), "passages": 2}
    lists = [json.loads(line) for line in (work / "stage1_lists" / "lists.jsonl").read_text().splitlines()]
    assert [record["qid"] for record in lists] == [q.id for q in questions]
    assert all(sorted(record["pids"]) == ["1", "3"] for record in lists)
    assert next(r["pids"] for r in lists if r["qid"] == query.id) == ["1", "3"]

    class Store:
        fingerprint = "store"
        row = staticmethod({"1": 0, "2": 1, "3": 2}.__getitem__)

    read = PassageLists.from_public(work / "stage1_lists" / "lists.jsonl", [q.id for q in questions], Store())
    assert read.k == 2 and len(read.rows) == len(questions)


def test_lists_by_a_model(tmp_path):
    tiny_run.write_data(tmp_path)
    save_pretrained(tmp_path / "weights", tiny_model.random_params(), tiny_model.CONFIG)
    teacher = ModelTeacherConfig(
        str(tmp_path / "weights"), tiny_model.CONFIG, str(tmp_path / "vocabulary.model"), list_length=3
    )
    languages = tmp_path / "languages.tsv"
    languages.write_text("".join(f"{p.id}\t{'en' if i % 2 else 'fi'}\n" for i, p in enumerate(tiny_run.passages())))
    found = write_model_lists(
        tmp_path / "lists.jsonl",
        queries=tmp_path / "parallel.tsv",
        passages=tmp_path / "passages.tsv",
        languages=languages,
        teacher=teacher,
    )
    assert found == {"lists": 24, "english_questions": 24, "passages": 48}
    lists = [json.loads(line) for line in (tmp_path / "lists.jsonl").read_text().splitlines()]
    assert [r["qid"] for r in lists] == [q.id for q in read_parallel(tmp_path / "parallel.tsv")]
    assert all(len(set(r["pids"])) == 3 and all(int(pid[-1]) % 2 for pid in r["pids"]) for r in lists)
    assert not list(tmp_path.glob("tmp*"))  # the search's own files are gone


def test_lists_name_a_passage_without_language(tmp_path):
    write_passages(tmp_path / "p.tsv", [Passage("1", "a b", "t"), Passage("2", "c d", "t")])
    (tmp_path / "l.tsv").write_text("id\tlanguage\n1\ten\n")
    with pytest.raises(InputError, match=r"passage '2' .* is missing here"):
        list(english_passages(tmp_path / "p.tsv", tmp_path / "l.tsv"))


def group(english, finnish, targets=None):
    pages = [linked_wiki.page("en", "A", english), linked_wiki.page("fi", "A", finnish)]
    return [LinkedPage(p.language, p.to_json(), i, targets or {}) for i, p in enumerate(pages)]


class Broken(LinkEmbedder):
    """Gives NaN for sentences with a question mark."""

    def embed(self, sentences, language, links=None):
        vectors = super().embed(sentences, language, links)
        vectors[[i for i, s in enumerate(sentences) if "?" in s]] = np.nan
        return vectors


def run_group(english, finnish, embedder=None, **settings):
    counts = {}

    def count(name, amount=1):
        counts[name] = counts.get(name, 0) + amount

    config = MiningConfig(languages=("fi",), **settings)
    one, two = group(english, finnish)
    embedder = embedder or LinkEmbedder()
    return list(mine_page_group(one, [two], config, embedder=embedder, finder=RuleEntities(), count=count)), counts


ENGLISH = "In the year 1711 it burnt down.\nThe year 1822 was wet.\nPeople asked why in 1933?\nRepeated in 2004.\nRepeated in 2004."
FINNISH = "Vuonna 1711 se paloi.\nVuosi 1822 oli sateinen.\nMiksi vuonna 1933?\nToistuu 2004."


def test_vectors_that_are_not_finite_are_left_out_and_counted():
    whole, _ = run_group(ENGLISH, FINNISH)
    found, counts = run_group(ENGLISH, FINNISH, Broken())
    assert {p.english_place[1] for p in whole} == {0, 1, 2, 3}
    assert counts["rejected/vector_not_finite"] == 2 and counts["rejected/repeated_sentence"] == 1
    assert {(p.english_place, p.other_place) for p in found} == {(("1", i), ("1", i)) for i in (0, 1, 3)}


def test_reasons_of_rejection_are_counted():
    same = "Olympiastadion 1952, Helsinki.\nThe year 1822 was wet."
    found, counts = run_group(same, "Olympiastadion 1952, Helsinki.\nVuosi 1822 oli sateinen.")
    assert counts["rejected/untranslated"] == 1 and [p.english for p in found] == ["The year 1822 was wet."]
    # Names that are alike make pairs; without an entity they are no use.
    found, counts = run_group("Alpha beta gamma.\nDelta omega kappa.", "Alpha beta gammaa.\nDelta omega kappaa.")
    assert found == [] and counts["rejected/no_answer"] == 2
    _, counts = run_group(ENGLISH, FINNISH, max_sentences=2, min_characters=20, max_characters=23)
    assert counts["rejected/too_long"] > 0 and counts["rejected/too_short"] > 0
    _, counts = run_group(ENGLISH, FINNISH, max_sentences=2)
    assert counts["rejected/too_many_sentences"] == 5 and counts["sentences/fi"] == 2
    found, counts = run_group("", "")
    assert found == [] and counts["rejected/page_without_sentences"] == 2


def test_names_are_taken_for_links_wherever_they_occur():
    page = linked_wiki.page("fi", "A", "[[Ruotsi|Ruotsissa]] on [[Jossakin]].\nRuotsissa sataa.\nEi mitään.")
    assert sentence_links(page, [0, 1, 2], {"Ruotsi": AnchorTarget("Sweden", None)}) == [["Sweden"], ["Sweden"], []]
    assert sentence_links(page, [1], {}) == [[]]
    assert title_key("Cafe\u0301_au lait ") == "Café au lait"


def test_ranking_does_not_depend_on_the_files_and_takes_a_pair_once(tmp_path):
    pairs = [
        SentencePair("fi", f"English {i}", f"Suomi {i}", margin, (), "A", ("1", i), ("2", i))
        for i, margin in enumerate((1.6, 2.5, 1.9, 2.5))
    ]
    again = dataclasses.replace(pairs[2], margin=3.0, page="B")
    for name, order in (("one", [[*pairs, again]]), ("two", [[pairs[3], again], [], [pairs[2], pairs[1], pairs[0]]])):
        for number, some in enumerate(order):
            file = tmp_path / name / f"{number}.jsonl"
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(pair.to_json() + "\n" for pair in some), encoding="utf-8")
    one, two = (rank_pairs(sorted((tmp_path / name).iterdir())) for name in ("one", "two"))
    assert list(read_pairs(one, 9)) == list(read_pairs(two, 9))
    assert [p.english for p in read_pairs(one, 1)] == ["English 2"] and len(one) == 4
    assert [p.margin for p in read_pairs(two, 9)] == [3.0, 2.5, 2.5, 1.6]
    (tmp_path / "one" / "0.jsonl").write_text('{"language": "fi"}\n')
    with pytest.raises(InputError, match="not a pair"):
        rank_pairs([tmp_path / "one" / "0.jsonl"])


def test_without_pairs_there_is_nothing_to_write(tmp_path):
    with pytest.raises(InputError, match="is no finished stage"):
        write_parallel(tmp_path)
    with pytest.raises(InputError, match=r"'mined'"):
        ParallelConfig(source="mine")
