# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Few-shot adaptation by both objectives, quality of generated questions, and their commands."""

import json

import numpy as np
import pytest
import tiny_mbart
import tiny_run
import typer
from tiny_model import CONFIG, random_params
from typer.testing import CliRunner

from class_jax import api
from class_jax.commands import adapt as command
from class_jax.commands import rerank as rerank_command
from class_jax.corpus.mbart_vocabulary import MBartVocabulary
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.questions.readers import Question
from class_jax.reranking import adaptation, quality
from class_jax.reranking.adapt import AdaptConfig, adapt, choose_pairs
from class_jax.reranking.ranked import Candidate, RankedList, write_ranked
from class_jax.reranking.score import SourcePassage, score_pairs
from class_jax.reranking.scorers import MBartScorer, T5Scorer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    tiny_run.write_data(folder)
    tiny_mbart.write_pieces(folder / "sentencepiece.bpe.model")
    api.CLASS(CONFIG, random_params(), Vocabulary.load(folder / "vocabulary.model")).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def mbart_scorer(folder):
    vocabulary = MBartVocabulary(folder, tiny_mbart.CONFIG.vocab_size)
    return MBartScorer(tiny_mbart.CONFIG, tiny_mbart.random_params(), vocabulary)


@pytest.fixture(scope="module")
def t5_scorer(folder):
    return T5Scorer(api.CLASS.from_pretrained(folder / "model"))


def make_lists(count=6, languages=("fi", "ar")):
    """Lists of four passages, the second of which is right."""
    corpus = tiny_run.passages()
    lists = []
    for i in range(count):
        some = [corpus[(7 * i + 11 * j) % len(corpus)] for j in range(4)]
        passages = tuple(Candidate(p.id, p.title, p.text, -float(j), "en") for j, p in enumerate(some))
        lists.append(RankedList(Question(f"q{i}", f"joki {some[1].title}", ("x",), languages[i % 2]), passages))
    return lists, [frozenset({one.passages[1].id}) for one in lists]


def test_pairs_are_of_all_languages_in_turn():
    lists, right = make_lists(6, ("fi", "fi"))
    lists[3] = RankedList(Question("k", "x", (), "ko"), lists[3].passages)
    right[0] = None
    right[1] = frozenset({"elsewhere"})
    pairs = choose_pairs(lists, right, 3, 2)
    assert [p.language for p in pairs] == ["fi", "ko", "fi"] and pairs[0].question == lists[2].question.text
    assert pairs[0].right.id in right[2] and [c.score for c in pairs[0].wrong] == [0.0, -2.0]
    with pytest.raises(InputError, match="4 questions have a right passage and 3 wrong ones in their lists, not 5"):
        choose_pairs(lists, right, 5, 3)


@pytest.mark.parametrize("objective", ["likelihood", "contrastive"])
@pytest.mark.parametrize("kind", ["mbart_scorer", "t5_scorer"])
def test_adaptation_does_what_its_objective_says(kind, objective, request):
    scorer = request.getfixturevalue(kind)
    lists, right = make_lists(4)
    pairs = choose_pairs(lists, right, 4, 3)

    def scores(by):
        """[4, 4], the right passage first."""
        sources = [SourcePassage(c.id, c.title, c.text, c.language) for p in pairs for c in (p.right, *p.wrong)]
        order = [(4 * b + n, b) for b in range(4) for n in range(4)]
        return score_pairs(by, sources, [(p.question, p.language) for p in pairs], order).scores.reshape(4, 4)

    before = scores(scorer)
    config = AdaptConfig(objective, steps=12, batch=4, negatives=3, learning_rate=1e-2)
    adapted, losses = adapt(scorer, pairs, config)
    after = scores(adapted)
    # The first step's loss is that of the untouched model, by the scores that re-ranking uses.
    softmax = before[:, 0] / 0.5 - np.log(np.exp(before / 0.5).sum(axis=1))
    wanted = -softmax.mean() if objective == "contrastive" else -before[:, 0].mean()
    assert losses[0] == pytest.approx(wanted, abs=1e-4)
    assert losses[-1] < losses[0] and adapted.fingerprint != scorer.fingerprint
    if objective == "likelihood":
        assert after[:, 0].mean() > before[:, 0].mean() + 0.1
    else:
        margins = [x[:, 0] - x[:, 1:].max(axis=1) for x in (before, after)]
        assert margins[1].mean() > margins[0].mean() + 0.1
    np.testing.assert_array_equal(scores(scorer), before)  # the given scorer is not changed


def test_settings_are_checked():
    with pytest.raises(InputError, match="unknown objective 'contrast'; did you mean 'contrastive'"):
        AdaptConfig("contrast")
    with pytest.raises(InputError, match="steps: is 0"):
        AdaptConfig(steps=0)


def test_sides_have_the_same_questions():
    passages = {p.id: p for p in tiny_run.passages()[:4]}
    ids = list(passages)
    languages = dict(zip(ids, ("fi", "en", "en", "ko"), strict=True))
    questions = [Question("a", "x", (), "fi"), Question("b", "y", (), "ko"), Question("c", "z", (), "en")]
    right = {"a": set(ids), "b": {ids[0], ids[3]}, "c": set(ids)}
    sides = quality.passages_by_side(questions, right, passages, languages, "en")
    assert [(q.id, s.id, s.language) for q, s in sides["same"]] == [("a", ids[0], "fi")]
    assert [(q.id, s.id, s.language) for q, s in sides["cross"]] == [("a", ids[1], "en")]
    with pytest.raises(InputError, match="no question has a right passage in its own language and one in 'ru'"):
        quality.passages_by_side(questions, right, passages, languages, "ru")


@pytest.mark.parametrize("kind", ["mbart_scorer", "t5_scorer"])
def test_perplexity_is_over_all_tokens_and_generation_over_each(kind, request):
    scorer = request.getfixturevalue(kind)
    corpus = tiny_run.passages()
    given = [
        (Question(str(i), text, (), ("fi", "ar")[i % 2]), SourcePassage(p.id, p.title, p.text, "en"))
        for i, (text, p) in enumerate(zip(("joki", "tori myy", "mika joki virtaa"), corpus, strict=False))
    ]
    table, generated = quality.measure_quality(scorer, {"same": given, "cross": given[::-1]})
    rows = {row[0]: row for row in table.rows}
    assert rows["fi"][1] == 2 and rows["ar"][1] == 1 and rows["fi"][2] == pytest.approx(rows["fi"][3])
    fi = [given[0], given[2]]
    scores = score_pairs(scorer, [s for _, s in fi], [(q.text, q.language) for q, _ in fi], [(0, 0), (1, 1)]).scores
    targets = [scorer.target(q.text, q.language)[0] for q, _ in fi]
    counts = np.array([len(t.labels) - t.skip for t in targets])
    assert counts[0] != counts[1]
    assert rows["fi"][2] == pytest.approx(np.exp(-(scores * counts).sum() / counts.sum()), rel=1e-5)
    # A text's output does not depend on its batch.
    alone = quality.generate_questions(scorer, [given[2]])
    assert generated["same"][2] == ("2", corpus[2].id, alone[0])


def test_bleu_counts_characters_where_no_blanks_are_written():
    assert quality.corpus_bleu(["東京の首都はどこ"], ["東京の首都はどこ"], "ja") == pytest.approx(100)
    assert quality.corpus_bleu(["東京の首都はどこ"], ["大阪の首都はどこ"], "ja") > 50
    assert quality.corpus_bleu(["東京の首都はどこ"], ["大阪の首都はどこ"], "fi") < 5  # one word, and the wrong one


def invoke(function, *arguments):
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, [str(x) for x in arguments])


def test_the_commands(folder, tmp_path, monkeypatch):
    rerank = adaptation._rerank

    def chosen_scores(scorer, judged, out, name, *rest):
        found = rerank(scorer, judged, out, name, *rest)
        found.values["MRR"] = np.full(len(found.ids), {"likelihood_4": 0.9, "contrastive_4": 0.2}.get(name, 0.95))
        return found

    monkeypatch.setattr(adaptation, "_rerank", chosen_scores)  # random weights would rank all alike
    lists, right = make_lists(8)
    write_ranked(tmp_path / "examples.json", lists[:4], "ctxs")
    write_ranked(tmp_path / "heldout.json", lists[4:], "ctxs")
    gold = tmp_path / "gold.jsonl"
    rows = [{"id": one.question.id, "passages": sorted(ids)} for one, ids in zip(lists, right, strict=True)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = (tmp_path / "examples.json", "--model", folder / "model", "--gold", gold, "--out", tmp_path / "out")
    size = ("--steps", 2, "--batch", 2, "--pairs", "4", "--save", tmp_path / "best")
    found = invoke(command.rerank_adapt, *given, "--heldout", tmp_path / "heldout.json", *size)
    assert found.exit_code == 0, found.exception
    names = ("retriever", "zero-shot", "likelihood 4", "contrastive 4")
    table = (tmp_path / "out" / "adaptation.md").read_text()
    assert all(f"| {name} " in table for name in names)
    assert "best: likelihood 4, the best macro MRR (90.0)" in found.output
    [log] = (tmp_path / "out" / "scores").glob("likelihood_4.*")
    saved = T5Scorer(api.CLASS.from_pretrained(tmp_path / "best"))
    assert saved.fingerprint == json.loads(log.read_text().splitlines()[0])["made_with"]["scorer"]
    same = invoke(command.rerank_adapt, *given, "--heldout", tmp_path / "examples.json", *size)
    assert isinstance(same.exception, InputError) and "question 'q0': is among the examples too" in str(same.exception)
    wrong = invoke(command.rerank_adapt, *given, "--heldout", tmp_path / "heldout.json", "--pairs", "few")
    assert isinstance(wrong.exception, InputError) and "'few' is no list of numbers" in str(wrong.exception)
    (tmp_path / "notes.txt").write_text("x")
    taken = invoke(command.rerank_adapt, *given, "--heldout", tmp_path / "heldout.json", "--save", tmp_path)
    assert isinstance(taken.exception, InputError) and "holds other things than a model's" in str(taken.exception)
    languages = tmp_path / "languages.tsv"
    corpus = tiny_run.passages()
    languages.write_text("".join(f"{p.id}\t{('en', 'fi', 'ar')[i % 3]}\n" for i, p in enumerate(corpus)))
    everything = [{"id": f"h{i}", "passages": [p.id for p in corpus[:6]]} for i in range(6)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in everything))
    corpus_flags = ("--passages", folder / "passages.tsv", "--passage-languages", languages, "--gold", gold)
    found = invoke(
        command.question_quality,
        folder / "heldout.jsonl",
        "--model",
        folder / "model",
        *corpus_flags,
        "--out",
        tmp_path / "q",
    )
    assert found.exit_code == 0, found.exception
    assert (
        "| fi " in (tmp_path / "q.md").read_text()
        and len((tmp_path / "q.generated.jsonl").read_text().splitlines()) == 12
    )


def test_an_adapted_mbart_is_saved_and_reranks(mbart_scorer, tmp_path):
    """The scores of the saved weights are bit for bit those of the adapted ones."""
    mbart_scorer.save(tmp_path / "mbart")
    lists, right = make_lists(4)
    write_ranked(tmp_path / "examples.json", lists[:2], "ctxs")
    write_ranked(tmp_path / "heldout.json", lists[2:], "ctxs")
    rows = [{"id": one.question.id, "passages": sorted(ids)} for one, ids in zip(lists, right, strict=True)]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gold = ("--gold", tmp_path / "gold.jsonl")
    found = invoke(
        command.rerank_adapt,
        *(tmp_path / "examples.json", "--heldout", tmp_path / "heldout.json", "--model", tmp_path / "mbart", *gold),
        *("--out", tmp_path / "out", "--objectives", "likelihood", "--pairs", 2, "--steps", 2, "--batch", 2),
        *("--top", 3, "--save", tmp_path / "adapted"),
    )
    assert found.exit_code == 0, found.exception
    shown = invoke(
        rerank_command.rerank,
        *(
            tmp_path / "heldout.json",
            "--model",
            tmp_path / "adapted",
            "--out",
            tmp_path / "new.json",
            "--top",
            3,
            *gold,
        ),
    )
    assert shown.exit_code == 0, shown.exception
    [log] = (tmp_path / "out" / "scores").glob("likelihood_2.*")
    assert (tmp_path / "new.json.scores.jsonl").read_text() == log.read_text()
    [before] = (tmp_path / "out" / "scores").glob("zero-shot.*")
    assert before.read_text().splitlines()[1:] != log.read_text().splitlines()[1:]
