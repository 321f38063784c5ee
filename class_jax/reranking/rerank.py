# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Re-ranks lists: scores in a log that resumes, interpolation with the retriever, languages, and a table of the ranks.

Axes: B questions, N passages of one question.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from class_jax.common.files import read_json, write_json
from class_jax.common.work_log import WorkLog
from class_jax.errors import InputError, nearest
from class_jax.evaluation.passages import first_ranks
from class_jax.evaluation.scores import Scores
from class_jax.evaluation.significance import paired_bootstrap, paired_t_test
from class_jax.evaluation.text import get_tokeniser, join_passages, span_answers
from class_jax.reports.tables import Column, Table
from class_jax.reranking.ranked import OnBad, RankedList, refuse
from class_jax.reranking.score import Scorer, SourcePassage, score_pairs

_log = logging.getLogger(__name__)

TOP = 50
DEPTHS = (5, 15)
METRICS = (*(f"R@{k}" for k in DEPTHS), "MRR")
# Questions that are scored together, and whose scores are written together.
_BLOCK = 16
_WEIGHTS = tuple(i / 20 for i in range(20))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How lists are re-ranked, as chosen on development data.

    Attributes:
      weight: of the retriever's score, 0 to 1; the model's has 1 - weight. Both are standardised within a list.
      languages: of questions to re-rank; None means all.
      scorer: fingerprint of the model that they were chosen for, or None.
      metric: by which they were chosen.
    """

    weight: float = 0.0
    languages: tuple[str, ...] | None = None
    scorer: str | None = None
    metric: str | None = None

    def write(self, path: str | os.PathLike) -> None:
        """Writes them as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Settings":
        """Reads what `write` wrote.

        Raises:
          InputError: if the file is something else.
        """
        content = read_json(path)
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(content, dict) or set(content) != set(names):
            raise InputError(f"is not an object of {', '.join(names)}", file=path, remedy="write it with --tune")
        weight, languages = content["weight"], content["languages"]
        if not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise InputError("is not a number from 0 to 1", file=path, key="weight")
        if languages is not None and not isinstance(languages, list):
            raise InputError("is neither null nor a list", file=path, key="languages")
        return cls(**(content | {"languages": None if languages is None else tuple(languages)}))


def score_lists(
    scorer: Scorer,
    lists: Sequence[RankedList],
    log: str | os.PathLike,
    *,
    top: int = TOP,
    on_bad: OnBad = refuse,
) -> dict[str, np.ndarray]:
    """Scores the first `top` passages of each list, or finds their scores in the log.

    Args:
      scorer: the model.
      lists: B lists.
      log: JSON lines, one a question, appended to as blocks are done; a second start with the same scorer keeps them.
      top: passages scored, from the first.
      on_bad: called with the error of a question with bad texts or languages; if it returns, that one has no scores.

    Returns:
      Question id -> mean log-probabilities, [min(N, top)].

    Raises:
      InputError: if the log was made with another scorer or `top`, or the disk refuses a write.
    """
    scores: dict[str, np.ndarray] = {}
    made_with = {"scorer": scorer.fingerprint, "top": top}
    with WorkLog(log, made_with, "scores", ("list", "scores")) as kept:
        left = []
        for ranked in lists:
            known = kept.entries.get(ranked.question.id)
            if known is not None and known["list"] == _digest(ranked, top):
                scores[ranked.question.id] = np.array(known["scores"], np.float32)
            elif ranked.passages and ranked.usable:
                left.append(ranked)
        total = sum(min(top, len(ranked.passages)) for ranked in lists if ranked.usable)
        done = sum(len(values) for values in scores.values())
        cut = [0, 0]
        with tqdm(total=total, initial=done, unit="pair", desc="rerank", disable=None) as bar:
            for start in range(0, len(left), _BLOCK):
                for ranked, values in _block(scorer, left[start : start + _BLOCK], top, on_bad, bar.update, cut):
                    entry = {"list": _digest(ranked, top), "scores": [float(value) for value in values]}
                    kept.write(ranked.question.id, entry)
                    scores[ranked.question.id] = values
    for count, what, limit in zip(cut, ("passages", "questions"), (scorer.max_source, scorer.max_target), strict=True):
        if count:
            _log.warning("%d %s cut to the %d tokens that the model is given", count, what, limit)
    return scores


def _block(
    scorer: Scorer, lists: Sequence[RankedList], top: int, on_bad: OnBad, update: Callable[[int], None], cut: list[int]
) -> Iterator[tuple[RankedList, np.ndarray]]:
    """Scores lists together; if one of them is bad, each by itself."""
    passages = [SourcePassage(c.id, c.title, c.text, c.language) for ranked in lists for c in ranked.passages[:top]]
    owners = [b for b, ranked in enumerate(lists) for _ in ranked.passages[:top]]
    questions = [(ranked.question.text, ranked.question.language) for ranked in lists]
    pairs = np.array([(m, b) for m, b in enumerate(owners)])
    try:
        found = score_pairs(scorer, passages, questions, pairs, on_scored=update)
    except InputError as error:
        if len(lists) > 1:
            for ranked in lists:
                yield from _block(scorer, [ranked], top, on_bad, update, cut)
            return
        on_bad(InputError(str(error), key=f"question {lists[0].question.id!r}"))
        update(len(passages))
        return
    cut[0] += found.cut_passages
    cut[1] += found.cut_questions
    owners = np.array(owners)
    for b, ranked in enumerate(lists):
        yield ranked, found.scores[owners == b]


def _digest(ranked: RankedList, top: int) -> str:
    """Digest of a list, by which it differs from other lists of the same question."""
    passages = [(c.id, c.title, c.text, c.language) for c in ranked.passages[:top]]
    content = json.dumps([ranked.question.language, ranked.question.text, passages])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def rerank_list(ranked: RankedList, scores: np.ndarray | None, settings: Settings) -> RankedList:
    """Returns a list in its new order.

    The passages that were scored come first, by weight * retriever + (1 - weight) * model, each standardised over them
    (mean 0, standard deviation 1; a constant counts nothing), ties in the old order. The others follow in theirs. A
    list without scores, or of a language that the settings leave out, is unchanged.

    Args:
      ranked: N passages.
      scores: of the first of them, or None.
      settings: weight and gate.
    """
    gated = settings.languages is not None and ranked.question.language not in settings.languages
    if scores is None or gated or not len(scores):
        return ranked
    count = len(scores)
    retriever = np.array([c.score for c in ranked.passages[:count]], np.float64)
    combined = settings.weight * _standardised(retriever) + (1 - settings.weight) * _standardised(scores)
    order = np.argsort(-combined, kind="stable")
    first = [ranked.passages[i]._replace(score=float(combined[i])) for i in order]
    # Files are read in the order of scores: passages that were not scored follow, one lower for each place.
    lowest = float(combined.min())
    rest = [c._replace(score=lowest - place) for place, c in enumerate(ranked.passages[count:], start=1)]
    return dataclasses.replace(ranked, passages=(*first, *rest))


def _standardised(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def relevant(lists: Sequence[RankedList], gold: Mapping[str, Collection[str]] | None) -> list[frozenset[str] | None]:
    """Ids of each list's passages that answer its question; None where that is not known.

    By `gold` if there is one; else by `has_answer` of the file; else by whether an answer's tokens occur in the text.
    """
    if gold is not None:
        return [frozenset(gold[r.question.id]) if gold.get(r.question.id) else None for r in lists]
    splitter, found = get_tokeniser("auto"), []
    for ranked in lists:
        answers = span_answers(ranked.question.answers)
        judged = [c for c in ranked.passages if c.has_answer is not None]
        if judged:
            found.append(frozenset(c.id for c in judged if c.has_answer))
        elif answers:
            hits = (c.id for c in ranked.passages if join_passages([c.text], splitter).find(answers))
            found.append(frozenset(hits))
        else:
            found.append(None)
    return found


def score_ranks(lists: Sequence[RankedList], right: Sequence[frozenset[str] | None]) -> Scores:
    """Recall@5, Recall@15 and reciprocal rank of each question; one without a right passage in its list has 0.

    Args:
      lists: B lists. right: of `relevant`; questions with None are left out.
    """
    kept = [b for b, ids in enumerate(right) if ids is not None]
    ranks = first_ranks([[c.id for c in lists[b].passages] for b in kept], [right[b] for b in kept])
    values = {f"R@{k}": (ranks <= k).astype(np.float64) for k in DEPTHS} | {"MRR": 1.0 / ranks}
    questions = [lists[b].question for b in kept]
    return Scores([q.id for q in questions], [q.language for q in questions], values, len(lists) - len(kept))


def tune(
    lists: Sequence[RankedList],
    scores: Mapping[str, np.ndarray],
    right: Sequence[frozenset[str] | None],
    metric: str = "MRR",
    scorer: str | None = None,
) -> Settings:
    """Chooses weight and languages on development data.

    With each weight, of 0, 0.05, ... 0.95, those languages are re-ranked whose mean it raises. The weight with the
    best mean over languages is taken, the greatest of equals.

    Args:
      lists: B lists. scores: of `score_lists`. right: of `relevant`.
      metric: one of `METRICS`.
      scorer: fingerprint to write into the settings.

    Raises:
      InputError: for an unknown metric, or if no question can be judged.
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric {metric!r}", key="metric", remedy=nearest(metric, METRICS))
    before = {language: row[metric] for language, row in score_ranks(lists, right).summary()["languages"].items()}
    best, chosen = -1.0, Settings()
    for weight in _WEIGHTS:
        changed = [rerank_list(ranked, scores.get(ranked.question.id), Settings(weight)) for ranked in lists]
        after = score_ranks(changed, right).summary()["languages"]
        gained = {language: after[language][metric] - before[language] for language in before}
        total = sum(max(0.0, gain) for gain in gained.values())
        # Sums of equal gains may differ in their last digit.
        if total >= best - 1e-12:
            best = max(best, total)
            chosen = Settings(weight, tuple(lang for lang, gain in gained.items() if gain > 0), scorer, metric)
    return chosen


def comparison(before: Scores, after: Scores) -> Table:
    """Recall@5, Recall@15 and MRR by language, before and after, with their significance.

    Args:
      before, after: of the same questions.

    Raises:
      InputError: if no question was scored.
    """
    first, last = before.summary(), after.summary()
    codes = np.asarray(before.languages)
    rows = []
    for language in (*first["languages"], "all"):
        mine = np.ones(len(codes), bool) if language == "all" else codes == language
        for metric in METRICS:
            a, b = before.values[metric][mine], after.values[metric][mine]
            drawn, t = paired_bootstrap(a, b), paired_t_test(a, b)
            rows.append(
                (f"{language} {metric}", int(mine.sum()), a.mean(), b.mean(), *drawn[:3], drawn.p, t.low, t.high, t.p)
            )
    for metric in METRICS:
        a, b = first["macro"][metric], last["macro"][metric]
        rows.append((f"macro {metric}", first["macro"]["count"], a, b, b - a, *[None] * 6))
    shown = {"best": None, "percent": True}
    columns = [Column("question language"), Column("questions", best=None)]
    columns += [Column(name, **shown) for name in ("before", "after", "change")]
    for group in ("bootstrap", "t-test"):
        columns += [Column("low", group, **shown), Column("high", group, **shown)]
        columns.append(Column("p", group, digits=3, best=None))
    notes = (
        "low and high: 95% interval of the change; p: two-sided, of no change, not corrected for the number of rows",
        "all: mean over questions; macro: mean over languages",
        *first["notes"],
    )
    return Table("Before and after re-ranking", columns, rows, notes)
