# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Re-ranking: scores, formats, interpolation and gate, resumption, bad input, and the command."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_mbart
import tiny_run
import typer
from tiny_model import CONFIG, random_params
from typer.testing import CliRunner

from class_jax import api
from class_jax.checkpoints.mbart_files import load_mbart
from class_jax.commands import rerank as command
from class_jax.corpus import mbart_vocabulary
from class_jax.corpus.passages import write_passages
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models import class_model
from class_jax.questions.readers import Question
from class_jax.reranking import ranked, rerank_files, scorers
from class_jax.reranking import rerank as ranks
from class_jax.reranking.ranked import Candidate, RankedList
from class_jax.reranking.score import Scored, SourcePassage, Target, score_pairs


class CountingScorer:
    """Finds a question likely by a passage in as far as they share letters; counts what it encodes."""

    fingerprint, max_source, max_target = "counting", 100, 40

    def __init__(self):
        self.encoded, self.shapes, self.counted = [], set(), 0

    def source(self, passage):
        return [ord(c) for c in passage.text][: self.max_source], len(passage.text) > self.max_source

    def target(self, question, language):
        if language == "km":
            raise InputError("no tag for 'km'", key="language")
        return Target(2, [1, *map(ord, question)], 1), False

    def encode(self, ids, lengths):
        self.encoded += [bytes(row[:n].astype(np.uint8)).decode() for row, n in zip(ids, lengths, strict=True)]
        return [set(row[:n].tolist()) for row, n in zip(ids, lengths, strict=True)]

    def log_probabilities(self, memory, rows, inputs, labels, counted):
        self.counted += int(counted.sum())
        assert (inputs[:, 0] == 2).all() and (inputs[:, 1:] == labels[:, :-1]).all()
        self.shapes.add(labels.shape)
        return np.array([[-1.0 if t in memory[r] else -9.0 for t in row] for r, row in zip(rows, labels, strict=True)])


def shared(question, text):
    """What `CountingScorer` gives a pair."""
    return np.mean([-1.0 if c in text else -9.0 for c in question])


def make(id, language, question, passages, answers=("gold",)):
    """A list whose scores fall by one."""
    candidates = [Candidate(f"{id}-{i}", "t", text, -float(i), "en") for i, text in enumerate(passages)]
    return RankedList(Question(id, question, answers, language), tuple(candidates))


def test_a_passage_is_encoded_once_for_all_its_questions():
    scorer = CountingScorer()
    passages = [
        SourcePassage(*p, "en") for p in (("1", "", "abc"), ("2", "", "xyz"), ("1", "", "abc"), ("1", "", "abd"))
    ]
    questions = [("ab", "fi"), ("zzzzzzzzzzzzzzzzzzzzzza", "fi")]
    pairs = [(0, 0), (2, 1), (1, 1), (3, 0), (1, 0)]
    reported = []
    found = score_pairs(scorer, passages, questions, pairs, on_scored=reported.append)
    wanted = [shared(questions[q][0], passages[m].text) for m, q in pairs]
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-6)  # float32 means; the tag is not counted
    assert found.encoded == 3 and set(scorer.encoded) == {"abc", "xyz", "abd"} and sum(reported) == len(pairs)
    # Three short ones don't fill a batch: they move up to the long ones, and one shape is compiled.
    assert scorer.shapes == {(8, 24)}
    # Neither tags, nor padding, nor what fills the batch is given logits.
    assert scorer.counted == sum(len(questions[q][0]) for _, q in pairs)
    assert score_pairs(scorer, [], [], []) == Scored(pytest.approx([]), 0, 0, 0)


def test_pairs_are_found_again_in_any_batching():
    rng = np.random.default_rng(0)
    letters = [chr(c) for c in range(97, 123)]
    passages = [SourcePassage(str(i), "", "".join(rng.choice(letters, rng.integers(1, 99))), "en") for i in range(23)]
    questions = [("".join(rng.choice(letters, rng.integers(1, 39))), "fi") for _ in range(9)]
    pairs = np.array([(m, q) for m in range(23) for q in range(9) if rng.random() < 0.4])
    wanted = [shared(questions[q][0], passages[m].text) for m, q in pairs]
    for batch in (1, 4, 32):
        found = score_pairs(CountingScorer(), passages, questions, pairs, batch=batch)
        np.testing.assert_allclose(found.scores, wanted, rtol=1e-6)


def test_interpolation_and_gate():
    ranking = make("q", "fi", "ab", ["xx", "yy", "ab", "zz"])
    scores = np.array([-5.0, -4.0, -1.0], np.float32)

    def order(**settings):
        found = ranks.rerank_list(ranking, scores, ranks.Settings(**settings))
        values = [c.score for c in found.passages]
        assert values == sorted(values, reverse=True)  # readers sort by score
        return [int(c.id[-1]) for c in found.passages]

    assert order(weight=0.0) == [2, 1, 0, 3]  # the one beyond the scored ones stays behind
    assert order(weight=1.0) == [0, 1, 2, 3]
    # Standardised: retriever (1.22, 0, -1.22), model (-0.98, -0.39, 1.37).
    assert order(weight=0.5) == [0, 2, 1, 3] and order(weight=0.4) == [2, 0, 1, 3]
    assert ranks.rerank_list(ranking, scores, ranks.Settings(0.0, ("ko",))) is ranking
    assert ranks.rerank_list(ranking, None, ranks.Settings()) is ranking
    flat = ranks.rerank_list(ranking, np.zeros(3), ranks.Settings(0.0))
    assert [c.id for c in flat.passages] == [c.id for c in ranking.passages]


def development():
    """Finnish, where the model helps, and Bengali, where it harms: the right passage is second, and first."""
    lists, scores = [], {}
    for i in range(6):
        for language, right in (("fi", 1), ("bn", 0)):
            one = make(f"{language}{i}", language, "q", ["gold" if j == right else "other" for j in range(4)])
            lists.append(one)
            scores[one.question.id] = np.array([-3.0, -1.0, -3.0, -3.0], np.float32)
    return lists, scores


def test_tuning_finds_the_languages_that_gain():
    lists, scores = development()
    right = ranks.relevant(lists, None)
    assert right[0] == {"fi0-1"} and right[1] == {"bn0-0"}
    chosen = ranks.tune(lists, scores, right)
    assert chosen.languages == ("fi",) and chosen.metric == "MRR"
    changed = [ranks.rerank_list(one, scores[one.question.id], chosen) for one in lists]
    before, after = (ranks.score_ranks(x, right).summary() for x in (lists, changed))
    assert before["languages"]["fi"]["MRR"] == 0.5 and before["languages"]["bn"]["MRR"] == 1.0
    assert after["macro"]["MRR"] == 1.0
    with pytest.raises(InputError, match=r"unknown metric 'R@50'; did you mean 'R@5'"):
        ranks.tune(lists, scores, right, "R@50")


def test_the_table_separates_gain_from_chance():
    lists, scores = development()
    right = ranks.relevant(lists, None)
    changed = [ranks.rerank_list(one, scores[one.question.id], ranks.Settings(0.0, ("fi",))) for one in lists]
    table = ranks.comparison(ranks.score_ranks(lists, right), ranks.score_ranks(changed, right))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["fi MRR"][:4] == (6, 0.5, 1.0, 0.5) and rows["fi MRR"][6] < 0.05
    assert rows["bn MRR"][:4] == (6, 1.0, 1.0, 0.0) and rows["bn MRR"][6] == rows["bn MRR"][9] == 1.0
    assert rows["all MRR"][:3] == (12, 0.75, 1.0) and rows["fi R@5"][1] == 1.0 and "macro R@15" in rows


def test_a_question_without_a_right_passage_counts_as_a_miss():
    lists = [make("a", "fi", "q", ["gold"]), make("b", "fi", "q", ["x"]), make("c", "fi", "q", ["x"], ())]
    summary = ranks.score_ranks(lists, ranks.relevant(lists, None)).summary()
    assert summary["languages"]["fi"] == {"count": 2, "R@5": 0.5, "R@15": 0.5, "MRR": 0.5} and summary["left_out"] == 1
    marked = [dataclasses.replace(lists[0], passages=(lists[0].passages[0]._replace(has_answer=False),))]
    assert ranks.relevant(marked, None) == [frozenset()]
    assert ranks.relevant(lists, {"b": {"b-0"}}) == [None, {"b-0"}, None]


def test_scores_survive_a_kill(tmp_path):
    lists = [make(f"q{i}", "fi", "abc"[: i % 3 + 1], ["abc", "b", "x" * (i + 1)]) for i in range(40)]
    log = tmp_path / "log.jsonl"
    whole = ranks.score_lists(CountingScorer(), lists, log, top=2)
    assert all(len(values) == 2 for values in whole.values())
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 41
    log.write_bytes(b"".join(lines[:21]) + lines[21][:9])  # killed in the middle of a line
    again = CountingScorer()
    resumed = ranks.score_lists(again, lists, log, top=2)
    assert resumed.keys() == whole.keys() and all((resumed[id] == whole[id]).all() for id in whole)
    assert log.read_bytes().count(b"\n") == 41 and again.encoded
    idle = CountingScorer()
    ranks.score_lists(idle, lists, log, top=2)
    assert not idle.encoded
    changed = dataclasses.replace(lists[3], question=dataclasses.replace(lists[3].question, text="x"))
    found = ranks.score_lists(idle, [changed], log, top=2)
    assert idle.encoded and found["q3"].tolist() != whole["q3"].tolist()
    with pytest.raises(InputError, match=r"top: .*2, not 3"):
        ranks.score_lists(idle, lists, log, top=3)


def test_one_bad_question_does_not_stop_the_rest(tmp_path, caplog):
    lists = [make(f"q{i}", "fi", "ab", ["abc", "x"]) for i in range(5)]
    lists[1] = make("q1", "km", "ab", ["abc"])
    lists[3] = make("q3", "fi", "ab", ["abc", "  "])
    with pytest.raises(InputError, match="question 'q1': language: no tag for 'km'"):
        ranks.score_lists(CountingScorer(), lists, tmp_path / "a")
    bad = []
    found = ranks.score_lists(CountingScorer(), lists, tmp_path / "b", on_bad=bad.append)
    assert sorted(found) == ["q0", "q2", "q4"] and "passage 'q3-1': the passage has no text" in str(bad[1])
    ranks.score_lists(CountingScorer(), [make("long", "fi", "ab", ["a" * 101])], tmp_path / "c")
    assert "1 passages cut to the 100 tokens" in caplog.text


@pytest.mark.parametrize("form", ranked.FORMATS)
def test_formats_go_round(tmp_path, form):
    lists = [make("a", "fi", "kuka", ["one", "two"]), make("b", "te", "evaru", ["three"])]
    path = tmp_path / "out"
    ranked.write_ranked(path, lists, form)
    assert ranked.detect_format(path) == form
    texts = {c.id: ranked.Passage(c.id, c.text, c.title) for one in lists for c in one.passages}
    found = ranked.read_ranked(path, form, questions=[one.question for one in lists], passages=texts)
    assert [one.question for one in found] == [one.question for one in lists]
    assert [[c.text for c in one.passages] for one in found] == [["one", "two"], ["three"]]
    assert all(one.passages[0].score > one.passages[-1].score or len(one.passages) == 1 for one in found)


def test_ctxs_keeps_what_it_does_not_know(tmp_path):
    given = [
        {
            "q_id": "7",
            "question": "kuka",
            "lang": " fi",
            "answers": ["x"],
            "mine": 1,
            "ctxs": [{"id": 3, "title": "T", "text": "t", "score": "2.5", "has_answer": True, "rank_before": 9}],
        }
    ]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(given))
    lists = ranked.read_ranked(path, "ctxs", passage_language="en")
    assert lists[0].question.language == "fi" and lists[0].passages[0][3:6] == (2.5, "en", True)
    ranked.write_ranked(tmp_path / "out.json", lists, "ctxs")
    written = json.loads((tmp_path / "out.json").read_text())[0]
    assert written["mine"] == 1 and written["ctxs"][0]["rank_before"] == 9 and written["ctxs"][0]["score"] == "2.500000"


def test_bad_lists(tmp_path):
    path = tmp_path / "in.json"
    good = {"q_id": "1", "question": "q", "lang": "fi", "ctxs": [{"id": "1", "title": "", "text": "t", "score": 1}]}

    def problem(records, **given):
        path.write_text(json.dumps(records))
        with pytest.raises(InputError) as caught:
            ranked.read_ranked(path, "ctxs", **given)
        return str(caught.value)

    assert "question 1 (1): ctxs: no list" in problem([{k: v for k, v in good.items() if k != "ctxs"}])
    assert "question 1 (1): lang: unknown language 'xx'; known: ar, bn, da, " in problem([good | {"lang": "xx"}])
    assert "lang: its language is not known; give --language" in problem([good | {"lang": ""}])
    assert "answers: no list of texts" in problem([good | {"answers": "gold"}])
    assert "question 2: is no JSON object" in problem([good, 7])
    odd = good["ctxs"][0] | {"score": "high"}
    assert "question 1 (1): passage 2: score: 'high' is no number" in problem([good | {"ctxs": [*good["ctxs"], odd]}])
    assert "passage '1' occurs twice" in problem([good | {"ctxs": good["ctxs"] * 2}])
    assert "1: two questions have this id" in problem([good, good])
    assert "passage 1: has no text; remove it" in problem([good | {"ctxs": [{"id": "1"}]}])
    assert "passage 1: is no JSON object" in problem([good | {"ctxs": ["text"]}])
    assert "has no text, and no --questions" in problem([{"q_id": "1", "ctxs": []}])
    bad = []
    records = [good | {"ctxs": good["ctxs"] * 2}, good, {"q_id": "2", "question": "q", "lang": "fi"}]
    path.write_text(json.dumps(records))
    found = ranked.read_ranked(path, "ctxs", on_bad=bad.append)
    assert [len(one.passages) for one in found] == [1, 0] and len(bad) == 3
    path.write_text(json.dumps(good))
    with pytest.raises(InputError, match="is no JSON list of questions"):
        ranked.detect_format(path)
    path.write_text("q1 Q0 p1 one 2.0 tag\n")
    with pytest.raises(InputError, match=r"in\.json:1: not 'question Q0"):
        ranked.read_ranked(path, "trec", questions=[Question("q1", "q", (), "fi")], passages={})


def test_rows_of_a_run_that_name_nothing_are_skipped_where_asked_to(tmp_path):
    rows = ("q1 Q0 p1 1 3.0 t", "q2 Q0 p1 1 3.0 t", "q1 Q0 p2 2 2.0 t", "q1 Q0 p3 3 1.0 t")
    (tmp_path / "run").write_text("\n".join(rows) + "\n")
    texts = {id: ranked.Passage(id, "text", "") for id in ("p1", "p3")}
    given = {"questions": [Question("q1", "q", (), "fi")], "passages": texts}
    with pytest.raises(InputError, match=r"run:2: q2: no question has this id"):
        ranked.read_ranked(tmp_path / "run", "trec", **given)
    bad = []
    [found] = ranked.read_ranked(tmp_path / "run", "trec", **given, on_bad=bad.append)
    assert [c.id for c in found.passages] == ["p1", "p3"] and "run:3: p2: no passage has this id" in str(bad[1])


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A SentencePiece model of as many pieces as the tiny mBART of the fixtures has, in mBART's own order of ids."""
    file = tmp_path_factory.mktemp("pieces") / "sentencepiece.bpe.model"
    tiny_mbart.write_pieces(file)
    return file


@pytest.fixture(scope="module")
def mbart_scorer(golden, pieces):
    config, params, _ = load_mbart(golden / "mbart" / "hf_checkpoint")
    return scorers.MBartScorer(config, params, mbart_vocabulary.MBartVocabulary(pieces, config.vocab_size))


def test_mbarts_tags_and_ids(pieces):
    fifty, first = (mbart_vocabulary.MBartVocabulary(pieces, 270 + 2 + tags) for tags in (52, 25))
    assert (fifty.is_mbart50, first.is_mbart50) == (True, False)
    # Public ids of mBART-50 with 250,000 pieces: ar_AR 250001, en_XX 250004, te_IN 250045, sl_SI 250052.
    assert [fifty.tag(code) - 270 for code in ("ar", "en", "te", "sl", "zh_tw")] == [1, 4, 45, 52, 25]
    ids = fifty.encode("Asla is a town ☃")
    assert min(ids) >= 3 and 3 in ids  # the unknown piece; the others are one above SentencePiece's
    with pytest.raises(InputError, match="no tag for the language 'te'; known: ar, cs"):
        first.tag("te")
    with pytest.raises(InputError, match="want a model of 297 or 324 embeddings, not 400: it is another model's"):
        mbart_vocabulary.MBartVocabulary(pieces, 400)


def test_mbart_scores_are_those_of_the_public_model(golden, mbart_scorer):
    with np.load(golden / "mbart" / "fixture.npz") as fixture:
        sources, targets = fixture["src_ids"], fixture["tgt_ids"]
        wanted, with_tag = fixture["mean_log_prob_question_only"], fixture["mean_log_prob"]

    class Given(scorers.MBartScorer):
        """Takes the fixture's tokens for texts."""

        skip = 1

        def source(self, passage):
            return [int(t) for t in sources[int(passage.id)] if t != 1], False

        def target(self, question, language):
            return Target(2, [int(t) for t in targets[int(question)] if t != 1], self.skip), False

    given = Given(mbart_scorer.config, mbart_scorer.params, mbart_scorer.vocabulary)
    passages = [SourcePassage(str(i), "", "text", "en") for i in range(5)]
    pairs = [(i, i) for i in range(5)]
    found = score_pairs(given, passages, [(str(i), "fi") for i in range(5)], pairs)
    np.testing.assert_allclose(found.scores, wanted, atol=1e-4)
    given.skip = 0
    found = score_pairs(given, passages, [(str(i), "fi") for i in range(5)], pairs)
    np.testing.assert_allclose(found.scores, with_tag, atol=1e-4)


def test_the_scorer_is_given_the_languages(mbart_scorer):
    passage = SourcePassage("1", "Asla", "a town " * 40, "en")
    tag, eos = mbart_scorer.vocabulary.tag, 2
    ids, cut = mbart_scorer.source(passage)
    assert (ids[0], ids[-1], len(ids), cut) == (tag("en"), eos, mbart_scorer.config.max_positions, True)
    target, _ = mbart_scorer.target("town", "fi")
    assert (target.start, target.labels[0], target.labels[-1], target.skip) == (eos, tag("fi"), eos, 1)
    plain = scorers.MBartScorer(mbart_scorer.config, mbart_scorer.params, mbart_scorer.vocabulary, tags=False)
    untagged, _ = plain.target("town", None)
    assert (untagged.start, untagged.labels, untagged.skip) == (eos, target.labels[1:], 0)
    assert plain.source(passage)[0][0] != tag("en") and plain.fingerprint != mbart_scorer.fingerprint
    with pytest.raises(InputError, match="passage '1': its language is not known; give --passage-language"):
        mbart_scorer.source(passage._replace(language=None))
    with pytest.raises(InputError, match=r"no tag for the language 'yo'; known: af, ar, az, .*, zh; or score without"):
        mbart_scorer.source(passage._replace(language="yo"))


def test_no_batch_is_padded_past_the_models_positions(pieces):
    """40 positions are between two buckets: what is padded to the larger one would have none."""
    vocabulary = mbart_vocabulary.MBartVocabulary(pieces, tiny_mbart.CONFIG.vocab_size)
    scorer = scorers.MBartScorer(tiny_mbart.CONFIG, tiny_mbart.random_params(), vocabulary)
    passages = [SourcePassage("1", "", "town " * 40, "en"), SourcePassage("2", "", "town", "en")]
    found = score_pairs(scorer, passages, [("soup " * 40, "fi"), ("soup", "fi")], [(0, 0), (1, 1)])
    assert np.isfinite(found.scores).all() and (found.cut_passages, found.cut_questions) == (1, 1)
    alone = score_pairs(scorer, passages[1:], [("soup", "fi")], [(0, 0)])
    assert alone.scores[0] == pytest.approx(found.scores[1], abs=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLASS, its vocabulary, passages, questions and a run."""
    folder = tmp_path_factory.mktemp("rerank")
    tiny_run.write_vocabulary(folder / "vocabulary.model")
    model = api.CLASS(CONFIG, random_params(), Vocabulary.load(folder / "vocabulary.model"))
    model.save_pretrained(folder / "model")
    corpus = tiny_run.passages()
    write_passages(folder / "passages.tsv", corpus)
    questions, run, gold = [], [], []
    for i in range(4):
        questions.append({"id": f"q{i}", "question": f"joki {corpus[4 * i].title}", "lang": ("fi", "ar")[i % 2]})
        run += [f"q{i} Q0 {corpus[j].id} {r} {9 - r} bm25" for r, j in enumerate(range(i, 16, 3), start=1)]
        gold.append(f"q{i} 0 {corpus[4 * i].id} 1")
    (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    (folder / "run.trec").write_text("\n".join(run) + "\n")
    (folder / "gold.qrels").write_text("\n".join(gold) + "\n")
    return folder


def test_the_reader_scores_as_its_decoder_does(folder):
    model = api.CLASS.from_pretrained(folder / "model")
    scorer = scorers.T5Scorer(model)
    texts = [(p.title, p.text) for p in tiny_run.passages()[:3]]
    passages = [SourcePassage(str(i), *pair, None) for i, pair in enumerate(texts)]
    found = score_pairs(scorer, passages, [("mika joki", None), ("tori", None)], [(0, 0), (0, 1), (2, 1)]).scores
    graph = class_model.model_graph(CONFIG)

    @jax.jit
    def alone(params, ids, labels):
        """The plain way: one row, no padding, the whole decoder."""
        whole = class_model.merge(graph, params)
        lengths = np.array([ids.shape[1]])
        encoded = jax.tree.map(lambda x: x[:, None], whole.encode_passages(ids, lengths))
        nothing = whole.encode_questions(np.zeros((1, 1), np.int32), np.array([0]))
        logits, _ = whole.decode(whole.read(nothing, encoded), labels)
        return jax.nn.log_softmax(logits)

    ids = np.array([scorer.source(passages[2])[0]])
    labels = np.array([scorer.target("tori", None)[0].labels])
    wanted = np.take_along_axis(np.asarray(alone(model.params, ids, labels)), labels[..., None], axis=-1).mean()
    assert found[2] == pytest.approx(float(wanted), abs=1e-5)
    assert len(set(found.tolist())) == 3


def run(folder, *arguments):
    app = typer.Typer()
    app.command()(command.rerank)
    given = ["--model", folder / "model", "--questions", folder / "questions.jsonl"]
    return CliRunner().invoke(app, [str(x) for x in (*arguments, *given)])


def test_the_command_tunes_applies_and_converts(folder, tmp_path):
    out, passages = tmp_path / "out.trec", ("--passages", folder / "passages.tsv")
    tuned = run(
        *(folder, folder / "run.trec", *passages, "--out", out, "--gold", folder / "gold.qrels", "--top", 4),
        *("--tune", tmp_path / "settings.json", "--table", tmp_path / "table"),
    )
    assert tuned.exit_code == 0, tuned.exception
    for shown in ("Before and after re-ranking", "fi MRR", "bootstrap", "weight"):
        assert shown in tuned.output
    assert "Table(" not in tuned.output
    lines = [line.split() for line in out.read_text().splitlines()]
    before = [line.split() for line in (folder / "run.trec").read_text().splitlines()]
    assert sorted((q, p) for q, _, p, *_ in lines) == sorted((q, p) for q, _, p, *_ in before)
    assert "all MRR" in (tmp_path / "table.md").read_text()
    log = rerank_files.scores_log(out)
    assert len(log.read_text().splitlines()) == 5
    applied = run(
        *(folder, folder / "run.trec", *passages, "--out", tmp_path / "out.json", "--out-format", "ctxs"),
        *("--settings", tmp_path / "settings.json", "--top", 4),
    )
    assert applied.exit_code == 0, applied.exception
    records = json.loads((tmp_path / "out.json").read_text())
    assert [c["id"] for c in records[0]["ctxs"]] == [p for q, _, p, *_ in lines if q == "q0"]
    # With weight 0 and no gate the order is that of the log's scores.
    plain = run(folder, folder / "run.trec", *passages, "--out", out, "--top", 4)
    assert plain.exit_code == 0, plain.exception
    scores = json.loads(log.read_text().splitlines()[1])["scores"]
    first = [p for q, _, p, *_ in map(str.split, out.read_text().splitlines()) if q == "q0"][:4]
    old = [p for q, _, p, *_ in before if q == "q0"][:4]
    assert first == [old[i] for i in np.argsort(-np.array(scores), kind="stable")]


def test_what_the_command_refuses(folder, tmp_path):
    def problem(*arguments):
        result = run(folder, folder / "run.trec", "--out", tmp_path / "o", *arguments)
        assert isinstance(result.exception, InputError), result.output
        return str(result.exception)

    passages = ("--passages", folder / "passages.tsv")
    assert "a TREC run has no texts; give --passages" in problem()
    assert "unknown scorer 'mbrat'; did you mean 'mbart'" in problem(*passages, "--scorer", "mbrat")
    assert "is of kind 'class', not 'mbart'" in problem(*passages, "--scorer", "mbart")
    assert "needs {text}" in problem(*passages, "--template", "{title}")
    assert problem(*passages, "--tune", tmp_path / "s").startswith("tune: ")
    ranks.Settings(0.5, ("fi",), "f" * 64, "MRR").write(tmp_path / "other.json")
    assert "chosen for the scorer ffffffffffff" in problem(*passages, "--settings", tmp_path / "other.json")
    (tmp_path / "odd.json").write_text("{}")
    assert "is not an object of weight" in problem(*passages, "--settings", tmp_path / "odd.json")
    assert not (tmp_path / "o").exists()


def test_the_command_resumes_where_asked_to(folder, tmp_path):
    """What may be wrong with a file of lists: one line each, and with --skip-bad the rest is re-ranked."""
    good = [
        {"id": str(i), "title": p.title, "text": p.text, "score": 9 - i} for i, p in enumerate(tiny_run.passages()[:3])
    ]
    asked = {"question": "joki", "lang": "fi"}
    lists = [
        asked | {"q_id": "good", "ctxs": good},
        asked | {"q_id": "language", "lang": "xx", "ctxs": good},
        asked | {"q_id": "empty", "ctxs": [good[0], good[1] | {"text": "  "}]},
        asked | {"q_id": "score", "ctxs": [good[1], good[0] | {"score": "high"}]},
        asked | {"q_id": "silent", "question": " ", "ctxs": good},
        7,
        asked | {"q_id": "twice", "ctxs": [good[0], good[0], good[1]]},
        asked | {"q_id": "good", "ctxs": good},
        asked | {"q_id": "none"},
    ]
    (tmp_path / "in.json").write_text(json.dumps(lists))
    app = typer.Typer()
    app.command()(command.rerank)
    given = [tmp_path / "in.json", "--model", folder / "model", "--out", tmp_path / "out.json"]
    stopped = CliRunner().invoke(app, [str(x) for x in given])
    assert isinstance(stopped.exception, InputError) and "\n" not in str(stopped.exception)
    assert "question 2 (language): lang: unknown language 'xx'; known: ar, bn" in str(stopped.exception)
    assert not (tmp_path / "out.json").exists()
    found = CliRunner().invoke(app, [str(x) for x in (*given, "--skip-bad")])
    assert found.exit_code == 0, found.exception
    assert "problems: 8;" in found.output and "5 passages scored" in found.output
    written = {one["q_id"]: one["ctxs"] for one in json.loads((tmp_path / "out.json").read_text())}
    assert written.keys() == {"good", "language", "empty", "score", "twice", "none"}
    given = {one["q_id"]: one["ctxs"] for one in lists[1:5] if isinstance(one, dict) and "ctxs" in one}
    assert {id: written[id] for id in ("language", "empty", "score")} == {
        id: given[id] for id in ("language", "empty", "score")
    }
    assert sorted(c["id"] for c in written["twice"]) == ["0", "1"] and written["none"] == []


def test_another_models_vocabulary_is_refused(golden, folder):
    with pytest.raises(InputError, match="want a model of 407 or 434 embeddings, not 324: it is another model's"):
        scorers.load_scorer(golden / "mbart" / "hf_checkpoint", vocabulary=folder / "vocabulary.model")
