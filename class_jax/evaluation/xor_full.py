# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""XOR-Full: F1, exact match and BLEU of predicted answers, by language and macro (XOR-TyDi QA, Asai et al. 2021)."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores, check_ids
from class_jax.evaluation.text import normalise_answer, normalise_english_answer, segment_japanese
from class_jax.questions.question import Question

NO_ANSWER = "No Answer"
_MAX_NGRAM = 4


def exact_match(prediction: str, answer: str, normalise: Callable[[str], str] = normalise_answer) -> float:
    """1 where both are the same string after normalisation, else 0."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str, normalise: Callable[[str], str] = normalise_answer) -> float:
    """Harmonic mean of precision and recall over the normalised words, counted with repetition."""
    predicted, expected = normalise(prediction).split(), normalise(answer).split()
    common = (Counter(predicted) & Counter(expected)).total()
    # 2PR/(P+R) with P = common/predicted and R = common/expected.
    return 2 * common / (len(predicted) + len(expected)) if common else 0.0


def character_bleu(prediction: str, answers: Sequence[str]) -> float:
    """BLEU-4 over *characters* of one prediction against several answers, without smoothing.

    The official script hands strings to a function that expects lists of words, so that published
    numbers count characters; so does this one. As there, an n-gram order without a match has the
    smallest normal float for its precision, which makes the score tiny rather than 0.
    """
    if not prediction:
        return 0.0
    logs = []
    for n in range(1, _MAX_NGRAM + 1):
        counts = _ngrams(prediction, n)
        most: Counter[str] = Counter()
        for answer in answers:
            most |= _ngrams(answer, n)
        matches = (counts & most).total()
        if matches == 0 and n == 1:
            return 0.0
        logs.append(math.log(matches / counts.total() if matches else sys.float_info.min))
    nearest_length = min((len(answer) for answer in answers), key=lambda n: (abs(n - len(prediction)), n))
    brevity = min(0.0, 1 - nearest_length / len(prediction))
    return math.exp(brevity + sum(logs) / _MAX_NGRAM)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _score(prediction: str, answers: Sequence[str], language: str) -> tuple[float, float, float]:
    """(F1, EM, BLEU) of one prediction, the best over the answers."""
    words = prediction
    if language == "ja":
        answers = [segment_japanese(answer) for answer in answers]
        words = segment_japanese(prediction.replace("・", " ").replace("、", ","))
    # BLEU compares segmented answers with the unsegmented prediction, as the official script does.
    bleu = character_bleu(prediction, answers)
    return max(f1(words, a) for a in answers), max(exact_match(words, a) for a in answers), bleu


def score_answers(questions: Sequence[Question], predictions: Mapping[str, str], english_spans: bool = False) -> Scores:
    """Scores predicted answers, question by question.

    Args:
      questions: the questions; those whose first answer is "No Answer", or that have none, are left out.
      predictions: predicted answer by question id; a question without one counts as wrong.
      english_spans: score as XOR-EnglishSpan (English answers, normalised as SQuAD's, no BLEU).

    Returns:
      `f1`, `em` and, unless `english_spans`, `bleu` for each question.

    Raises:
      InputError: for predictions of unknown questions, for two questions with one id, for a
        prediction that is not a string, or where Japanese can't be segmented.
    """
    check_ids(questions, predictions)
    rows: list[tuple[float, ...]] = []
    ids, languages, missing = [], [], []
    for question in questions:
        answers = list(question.answers)
        if not answers or (answers[0] == NO_ANSWER and not english_spans):
            continue
        language = question.language.strip()
        ids.append(question.id)
        languages.append(language)
        prediction = predictions.get(question.id)
        if prediction is None:
            missing.append(question.id)
            rows.append((0.0, 0.0, 0.0))
        elif not isinstance(prediction, str):
            raise InputError(f"the prediction is of type {type(prediction).__name__}, not a string", key=question.id)
        elif english_spans:
            pairs = [(prediction, answer, normalise_english_answer) for answer in answers]
            rows.append((max(f1(*pair) for pair in pairs), max(exact_match(*pair) for pair in pairs)))
        else:
            rows.append(_score(prediction, answers, language))
    names = ("f1", "em") if english_spans else ("f1", "em", "bleu")
    values = {name: np.array([row[i] for row in rows], np.float64) for i, name in enumerate(names)}
    return Scores(ids, languages, values, len(questions) - len(ids), missing)


def evaluate_answers(questions: Sequence[Question], predictions: Mapping[str, str]) -> dict[str, Any]:
    """F1, EM and BLEU by language and macro: `score_answers(...).summary()`; see there for arguments and errors."""
    return score_answers(questions, predictions).summary()
