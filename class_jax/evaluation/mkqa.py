# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""MKQA (Longpre et al. 2021): conversion of the public file, and retrieval in 26 languages (paper appendix B).

Answers are scored as XOR-Full's are, by `xor_full.score_answers`: so do the published numbers (Table 6).
"""

import contextlib
import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from class_jax.common.files import replacing_folder
from class_jax.errors import InputError, nearest
from class_jax.evaluation.passages import parallel_id
from class_jax.evaluation.scores import Scores, check_ids
from class_jax.evaluation.text import JoinedPassages, PassageTokeniser, get_tokeniser, join_passages, span_answers
from class_jax.evaluation.xor_retrieve import TOKEN_BUDGETS, metric_name
from class_jax.questions.question import Question
from class_jax.questions.readers import MKQA_LANGUAGES, read_mkqa

UNSEEN_LANGUAGES = (
    *("da", "de", "es", "fr", "he", "hu", "it", "km", "ms", "nl", "no", "pl", "pt", "sv", "th", "tr", "vi"),
    *("zh_cn", "zh_hk", "zh_tw"),
)
"""The 20 languages over which the paper averages: those of MKQA without training questions (Tables 5 and 6)."""

Parallel = Mapping[str, Mapping[str, Sequence[str]]]
"""Answers by `passages.parallel_id` and language."""


def convert_mkqa(
    path: str | os.PathLike,
    out: str | os.PathLike,
    languages: Iterable[str] = MKQA_LANGUAGES,
    keep_unanswerable: bool = False,
) -> dict[str, int]:
    """Writes the public file as XOR-TyDi QA JSON lines, one file a language: `out/mkqa-fi.jsonl`, ...

    A line holds `id` (`fi-1234`), `question`, `answers`, `lang` and MKQA's answer `type`. With the defaults a
    language has the 6,758 questions of the literature: without the types `unanswerable` and `long_answer`.

    Args:
      path: `mkqa.jsonl`, gzipped or not.
      out: the folder to write, whole or not at all.
      languages: the languages to write.
      keep_unanswerable: whether questions without an answer are written too, with no answers.

    Returns:
      The number of questions by language.

    Raises:
      InputError: as `readers.read_mkqa`; if a language has no question; if the disk refuses a write.
    """
    languages = tuple(dict.fromkeys(languages))
    counts: Counter[str] = Counter()
    with replacing_folder(out) as folder, contextlib.ExitStack() as stack:
        files = {}
        types: dict[str, str] | None = None
        for question in tqdm(
            read_mkqa(path, languages, keep_unanswerable=keep_unanswerable), unit="question", disable=None
        ):
            language = question.language
            if types is None:
                types = read_types(path)
            if language not in files:
                files[language] = stack.enter_context(
                    open(folder / f"mkqa-{language}.jsonl", "w", encoding="utf-8", newline="\n")
                )
            row = {
                "id": question.id,
                "question": question.text,
                "answers": list(question.answers),
                "lang": language,
                "type": types[parallel_id(question.id, language)],
            }
            files[language].write(json.dumps(row, ensure_ascii=False) + "\n")
            counts[language] += 1
        for language in languages:
            if not counts[language]:
                raise InputError("no question in this language", file=path, key=language)
    return dict(counts)


def read_types(path: str | os.PathLike) -> dict[str, str]:
    """Reads MKQA's answer types (`entity`, `date`, `number_with_unit`, ...) by `example_id`, from the English answers.

    Raises:
      InputError: as `readers.read_mkqa`, if the file is not MKQA's.
    """
    for _ in read_mkqa(path, ("en",), keep_unanswerable=True):
        pass  # names file, line and key of the first bad record, so that the reading below can be plain
    types = {}
    with gzip.open(path, "rb") if os.fspath(path).endswith(".gz") else open(path, "rb") as lines:
        for line in lines:
            if line.strip():
                record = json.loads(line)
                given = record["answers"]["en"]
                types[str(record["example_id"])] = str(given[0].get("type", "unknown")) if given else "unknown"
    return types


def parallel_answers(questions: Iterable[Question]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Returns the answers of the same question in all languages, for `score_mkqa_retrieval`.

    Args:
      questions: MKQA's questions in every language that R^M@N is to count, as `readers.read_mkqa` yields them.
    """
    answers: dict[str, dict[str, tuple[str, ...]]] = {}
    for question in questions:
        language = question.language.strip()
        answers.setdefault(parallel_id(question.id, language), {})[language] = tuple(question.answers)
    return answers


def _check_settings(tokens: Sequence[int], at: Sequence[int], answers_in: str) -> None:
    for name, numbers in (("tokens", tokens), ("at", at)):
        if not numbers or min(numbers) < 1:
            raise InputError(f"must be at least 1, not {list(numbers)}", key=name)
    known = ("question", "any", *MKQA_LANGUAGES)
    if answers_in not in known:
        problem = f"unknown language {answers_in!r}"
        raise InputError(problem, key="answers_in", remedy=nearest(answers_in, known))


def score_mkqa_retrieval(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    parallel: Parallel | None = None,
    tokens: Sequence[int] = TOKEN_BUDGETS,
    at: Sequence[int] = (100,),
    answers_in: str = "en",
    tokeniser: str = "auto",
    progress: bool | None = None,
) -> Scores:
    """Scores ranked passages by R@kt, R^L@N and R^M@N, question by question.

    R@kt asks for an answer within the first k thousand tokens (paper Table 5, where passages are English), R^L@N
    for one in the question's language within the first N passages, R^M@N for one in any language (Table 4).
    Questions whose answers in all of `parallel` are yes, no or absent are left out, in every metric.

    Args:
      questions: the questions, of any languages.
      passages: by question id, the texts retrieved, best first; a question without any counts as wrong.
      parallel: answers in all languages, from `parallel_answers`; by default those of `questions`.
      tokens: the budgets of R@kt.
      at: the depths N.
      answers_in: R@kt looks for the answers in this language; `question` for the question's own, `any` for all.
      tokeniser: `line`, `punkt` or `auto`; see `text.get_tokeniser`. The notes say which it was.
      progress: show a progress bar; by default only in a terminal.

    Returns:
      `R@2kt`, ..., `R^L@100`, ... and `R^M@100`, ... for each question.

    Raises:
      InputError: for lists of unknown questions, two questions with one id, budgets or depths below 1, an unknown
        `answers_in`, or a question that has no answers in that language while others have.
    """
    _check_settings(tokens, at, answers_in)
    check_ids(questions, passages)
    parallel = parallel_answers(questions) if parallel is None else parallel
    splitter = get_tokeniser(tokeniser)
    keys = [parallel_id(q.id, q.language.strip()) for q in questions]
    needed = np.full((len(questions), 3), np.inf)  # tokens for R@kt, passages for R^L and R^M
    kept = np.zeros(len(questions), bool)
    cache, previous = _Cache(splitter), None
    hidden = None if progress is None else not progress
    # One question's languages find many of the same passages: taken together, each is tokenised once.
    for b in tqdm(
        sorted(range(len(questions)), key=keys.__getitem__),
        desc="answer recall",
        unit="question",
        disable=hidden,
        leave=False,
    ):
        question, language = questions[b], questions[b].language.strip()
        everywhere = parallel.get(keys[b], {language: question.answers})
        in_any = list(dict.fromkeys(a for answers in everywhere.values() for a in span_answers(answers)))
        if not in_any:
            continue
        kept[b] = True
        if keys[b] != previous:
            cache.clear()
            previous = keys[b]
        own = span_answers(question.answers)
        wanted = _wanted(question, own, in_any, everywhere, answers_in)
        joined = join_passages(passages.get(question.id, ()), cache.tokeniser)
        needed[b] = _needed(joined, wanted, own, in_any)
    rows = np.flatnonzero(kept)
    found = needed[rows]
    values = {metric_name(n): (found[:, 0] <= n).astype(np.float64) for n in tokens}
    values |= {f"R^{c}@{n}": (found[:, i] <= n).astype(np.float64) for i, c in ((1, "L"), (2, "M")) for n in at}
    counted = sorted({language for answers in parallel.values() for language in answers})
    where = {"question": "the question's language", "any": "any language"}.get(answers_in, f"{answers_in!r}")
    notes = [
        f"tokens counted by the tokeniser {splitter.name!r}",
        f"R@kt looks for the answers in {where}; R^M@N for those in {len(counted)} languages: {' '.join(counted)}",
    ]
    ids = [questions[b].id for b in rows]
    missing = [id for id in ids if id not in passages]
    languages = [questions[b].language.strip() for b in rows]
    return Scores(ids, languages, values, len(questions) - len(ids), missing, notes)


def _wanted(question: Question, own: list[str], in_any: list[str], everywhere: Mapping, answers_in: str) -> list[str]:
    """The answers that R@kt looks for."""
    if answers_in == "question":
        return own
    if answers_in == "any":
        return in_any
    if answers_in not in everywhere:
        raise InputError(
            f"no answers in {answers_in!r} for this question",
            key=question.id,
            remedy=f"read the questions in {answers_in!r} too, or look for the answers in 'question' or 'any'",
        )
    return span_answers(everywhere[answers_in])


def _needed(joined: JoinedPassages, wanted: list[str], own: list[str], in_any: list[str]) -> tuple[float, ...]:
    """Tokens that it takes to contain one of the wanted answers, and passages to contain one's own and any."""
    places = [joined.find(answers) for answers in (wanted, own, in_any)]
    return tuple(place[i] if place else np.inf for place, i in zip(places, (0, 1, 1), strict=True))


class _Cache:
    """A tokeniser that remembers the passages of one question."""

    def __init__(self, tokeniser: PassageTokeniser):
        self._split = tokeniser.split
        self._known: dict[str, list[str]] = {}
        self.tokeniser = PassageTokeniser(tokeniser.name, self)

    def __call__(self, passage: str) -> list[str]:
        tokens = self._known.get(passage)
        if tokens is None:
            tokens = self._known[passage] = self._split(passage)
        return tokens

    def clear(self) -> None:
        self._known.clear()
