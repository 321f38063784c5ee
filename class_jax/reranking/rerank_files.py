# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Re-ranking of a file of ranked passages: reading it, its right passages, weight and languages, bad questions."""

import logging
from pathlib import Path
from typing import NamedTuple

from class_jax.corpus.inputs import language_code
from class_jax.corpus.passage_languages import languages_by_id
from class_jax.errors import InputError
from class_jax.evaluation.runs import read_relevant
from class_jax.questions.readers import Question, read_xor
from class_jax.reports.tables import Table
from class_jax.reranking import ranked as files
from class_jax.reranking import rerank as ranks
from class_jax.reranking.ranked import OnBad, RankedList
from class_jax.reranking.rerank import Settings
from class_jax.reranking.score import Scorer

_log = logging.getLogger(__name__)


class Reranked(NamedTuple):
    """What re-ranking a file came to.

    Attributes:
      questions: how many lists were written.
      scored: how many passages were scored.
      problems: bad questions that were skipped.
      chosen: weight and languages.
      compared: ranks before and after by language; None where the right passages are not known.
    """

    questions: int
    scored: int
    problems: int
    chosen: Settings
    compared: Table | None


def rerank_file(
    scorer: Scorer,
    lists: list[RankedList],
    out: Path,
    form: str,
    *,
    settings: Settings,
    top: int,
    right: list[frozenset[str] | None],
    tune_by: str | None = None,
    bad: list[InputError] | None = None,
    skip_bad: bool = False,
) -> Reranked:
    """Scores passages, chooses weight and languages where asked to, and writes the lists in their new order.

    Args:
      scorer: the model that re-ranks.
      lists: see `read_lists`.
      out: file to write; scores are kept in `scores_log(out)`.
      form: of the file: ctxs, trec or xor.
      settings: weight and languages; see `choose_settings`.
      top: passages re-ranked of a list; the others follow as they were.
      right: ids of each list's right passages; see `find_right`.
      tune_by: a metric by which weight and languages are chosen on these lists instead.
      bad: bad questions found so far; those found here are added.
      skip_bad: whether to skip bad questions, or to end at the first one.

    Raises:
      InputError: for a bad question, or a log of other scores.
    """
    bad = [] if bad is None else bad
    scores = ranks.score_lists(scorer, lists, scores_log(out), top=top, on_bad=on_bad(bad, skip_bad))
    if tune_by is not None:
        settings = ranks.tune(lists, scores, right, tune_by, scorer.fingerprint)
    changed = [ranks.rerank_list(one, scores.get(one.question.id), settings) for one in lists]
    files.write_ranked(out, changed, form)
    compared = None
    if any(ids is not None for ids in right):
        compared = ranks.comparison(ranks.score_ranks(lists, right), ranks.score_ranks(changed, right))
    return Reranked(len(changed), sum(map(len, scores.values())), len(bad), settings, compared)


def find_right(lists: list[RankedList], gold: Path | None, needed_by: str | None = None) -> list[frozenset[str] | None]:
    """Ids of each list's right passages, from a file or from the questions' answers.

    Args:
      lists: the lists.
      gold: JSON lines (id, passages) or TREC qrels.
      needed_by: an option that needs some of them to be known.

    Raises:
      InputError: naming `needed_by`, where no right passage is known.
    """
    right = ranks.relevant(lists, None if gold is None else read_relevant(gold))
    if needed_by is not None and all(ids is None for ids in right):
        raise InputError("no right passage is known", key=needed_by, remedy="give --gold, or answers")
    return right


def scores_log(out: Path) -> Path:
    """Where scores are kept question by question, while passages are being re-ranked and after."""
    return out.with_name(f"{out.name}.scores.jsonl")


def on_bad(bad: list[InputError], skip: bool) -> OnBad:
    """What to do with a bad question: end, or warn, add it to `bad` and skip it."""

    def note_bad(error: InputError) -> None:
        if not skip:
            raise error
        _log.warning("%s", error)
        bad.append(error)

    return note_bad


def read_lists(
    ranked: Path,
    form: str,
    *,
    bad: list[InputError],
    skip_bad: bool,
    questions: Path | None = None,
    passages: Path | None = None,
    language: str | None = None,
    passage_language: str | None = None,
    passage_languages: Path | None = None,
) -> list[RankedList]:
    """Reads ranked lists with the files that their format needs; arguments as the command's options.

    Raises:
      InputError: see `class_jax.reranking.ranked.read_ranked`.
    """
    asked: list[Question] | None = None if questions is None else list(read_xor(questions))
    texts = files.passages_of_run(passages, ranked) if form == "trec" and passages is not None else None
    return files.read_ranked(
        ranked,
        form,
        questions=asked,
        passages=texts,
        language=None if language is None else language_code(language),
        passage_language=None if passage_language is None else language_code(passage_language),
        passage_languages=passage_languages and languages_by_id(passage_languages),
        on_bad=on_bad(bad, skip_bad),
    )


def choose_settings(file: Path | None, weight: float | None, scorer: Scorer) -> Settings:
    """The settings of a file that `--tune` wrote, or a weight for all languages.

    Raises:
      InputError: if the file was chosen for another scorer.
    """
    if file is None:
        return Settings(weight or 0.0)
    read = Settings.read(file)
    if read.scorer not in (None, scorer.fingerprint):
        raise InputError(
            f"chosen for the scorer {read.scorer[:12]}, but this one is {scorer.fingerprint[:12]}",
            file=file,
            remedy="tune again, or with the same model, tags, template and --max-passage-tokens",
        )
    return read
