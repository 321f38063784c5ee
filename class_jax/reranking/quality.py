# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How well a scorer generates questions, by language: from passages in the question's language and in another one.

Perplexity of the question that was asked, given a passage that answers it, and BLEU of the question that the model
generates from that passage. A perplexity is of the model's own tokens: it compares passages, not models.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from class_jax.common.batching import SOURCE_BUCKETS, buckets_within, length_batches, power_of_two
from class_jax.corpus.passages import Passage
from class_jax.errors import InputError
from class_jax.questions.readers import Question
from class_jax.reports.tables import Column, Table
from class_jax.reranking.score import Scorer, SourcePassage, score_pairs

# Scripts that put no blanks between words: BLEU counts their characters.
_UNSPACED = ("ja", "zh", "th", "km")
_BATCH = 16
_MAX_TOKENS = 48


def passages_by_side(
    questions: Sequence[Question],
    right: Mapping[str, Collection[str]],
    passages: Mapping[str, Passage],
    languages: Mapping[str, str],
    other: str,
) -> dict[str, list[tuple[Question, SourcePassage]]]:
    """Each question with its first right passage in its own language ("same"), and with that in `other` ("cross").

    Only questions that have both are taken, so that the two sides are of the same questions.

    Args:
      questions: the questions.
      right: by question id, ids of passages that answer it.
      passages, languages: by passage id.
      other: code of the language that the other passages are in.

    Raises:
      InputError: if no question has both.
    """
    found: dict[str, list[tuple[Question, SourcePassage]]] = {"same": [], "cross": []}
    for q in questions:
        ids = sorted((id for id in right.get(q.id, ()) if id in passages), key=lambda id: (len(id), id))
        own = next((id for id in ids if languages.get(id) == q.language), None)
        cross = next((id for id in ids if languages.get(id) == other), None)
        if q.language == other or own is None or cross is None:
            continue
        for side, id in (("same", own), ("cross", cross)):
            p = passages[id]
            found[side].append((q, SourcePassage(id, p.title, p.text, languages[id])))
    if not found["same"]:
        problem = f"no question has a right passage in its own language and one in {other!r}"
        raise InputError(problem, key="gold", remedy="check --gold and --passage-languages")
    return found


def generate_questions(scorer: Scorer, given: Sequence[tuple[Question, SourcePassage]]) -> list[str]:
    """The question that the model generates from each passage; in the question's language where the model has tags."""
    found = [""] * len(given)
    tokens = [scorer.source(source)[0] for _, source in given]
    buckets = buckets_within(SOURCE_BUCKETS, scorer.max_source)
    for language in dict.fromkeys(q.language for q, _ in given):
        mine = np.array([i for i, (q, _) in enumerate(given) if q.language == language])
        for some, width in length_batches(np.array([len(tokens[i]) for i in mine]), _BATCH, buckets):
            size = min(_BATCH, power_of_two(len(some)))
            ids, lengths = np.zeros((size, width), np.int32), np.ones(size, np.int32)
            for place, i in enumerate(mine[some]):
                ids[place, : len(tokens[i])], lengths[place] = tokens[i], len(tokens[i])
            limit = min(_MAX_TOKENS, scorer.max_target)
            texts = scorer.generate(scorer.encode(ids, lengths), language, limit)
            for place, i in enumerate(mine[some]):
                found[i] = texts[place]
    return found


def measure_quality(
    scorer: Scorer, sides: Mapping[str, Sequence[tuple[Question, SourcePassage]]]
) -> tuple[Table, dict]:
    """Perplexity and BLEU by language and side.

    Args:
      scorer: the model.
      sides: of `passages_by_side`.

    Returns:
      A table, a row for each language; and what was generated: side -> list of (question id, passage id, text).

    Raises:
      InputError: if sacrebleu is not installed, or a text is one that the scorer refuses.
    """
    measured: dict[str, dict[str, tuple[int, float, float]]] = {}
    generated = {}
    for side, given in sides.items():
        questions = [(q.text, q.language) for q, _ in given]
        pairs = np.array([(i, i) for i in range(len(given))])
        scores = score_pairs(scorer, [source for _, source in given], questions, pairs).scores
        made = generate_questions(scorer, given)
        generated[side] = [(q.id, source.id, text) for (q, source), text in zip(given, made, strict=True)]
        counts = []
        for text, language in questions:
            target = scorer.target(text, language)[0]
            counts.append(len(target.labels) - target.skip)
        for language in dict.fromkeys(code for _, code in questions):
            mine = [i for i, (_, code) in enumerate(questions) if code == language]
            total = sum(float(scores[i]) * counts[i] for i in mine)
            perplexity = math.exp(-total / sum(counts[i] for i in mine))
            bleu = corpus_bleu([made[i] for i in mine], [questions[i][0] for i in mine], language)
            measured.setdefault(language, {})[side] = (len(mine), perplexity, bleu)
    columns = [Column("question language"), Column("questions", best=None)]
    columns += [Column(side, "perplexity", best="min") for side in sides]
    columns += [Column(side, "BLEU") for side in sides]
    rows = []
    for language, by_side in measured.items():
        rows.append([language, by_side["same"][0], *(by_side[s][1] for s in sides), *(by_side[s][2] for s in sides)])
    notes = (
        "same: the passage is in the question's language; cross: it is in the other one",
        f"perplexity per token of the model; BLEU of greedy output, over characters for {', '.join(_UNSPACED)}",
    )
    return Table("Generated questions", columns, rows, notes), generated


def corpus_bleu(made: Sequence[str], wanted: Sequence[str], language: str) -> float:
    """BLEU, 0 to 100, of texts against one reference each: sacrebleu's 13a, or characters where no blanks are written.

    Raises:
      InputError: if sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise InputError("sacrebleu is not installed", remedy="pip install 'class-jax[evaluate]'") from error
    tokenise = "char" if language.split("_")[0] in _UNSPACED else "13a"
    return sacrebleu.corpus_bleu(list(made), [list(wanted)], tokenize=tokenise).score
