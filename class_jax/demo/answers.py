# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Held-out questions answered by the trained model, each marked as right or wrong, and whether a passage says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape

from class_jax.corpus.passages import Passage
from class_jax.evaluation.text import contains_answer
from class_jax.evaluation.xor_full import score_answers
from class_jax.models import inference
from class_jax.models.class_model import Params
from class_jax.questions.readers import Question
from class_jax.training.evaluator import Evaluator

_SHOWN_PASSAGES = 2


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer beside what was expected.

    Attributes:
      question: with the expected answers.
      text: the answer.
      right: it is one of the expected answers, normalised as for exact match.
      confidence: its probability.
      supported: a passage that was read contains it.
      passages: those that were read, the one with the most of the reader's attention first, each with that share.
    """

    question: Question
    text: str
    right: bool
    confidence: float
    supported: bool
    passages: Sequence[tuple[float, Passage]]


def spread_questions(questions: Sequence[Question], languages: Sequence[str], count: int) -> list[int]:
    """The numbers of `count` questions of each language, evenly spread over the language's questions."""
    chosen = []
    for language in languages:
        mine = [i for i, question in enumerate(questions) if question.language == language]
        chosen += (
            [mine[i] for i in sorted({(2 * n + 1) * len(mine) // (2 * count) for n in range(count)})] if mine else []
        )
    return chosen


def answer_questions(evaluator: Evaluator, params: Params, chosen: Sequence[int]) -> list[JudgedAnswer]:
    """Retrieves and reads for the chosen questions, and judges the answers."""
    rows, scores = evaluator.search(
        inference.retriever_params(params), evaluator.config.num_passages, evaluator.read_allowed
    )
    answers = evaluator.answer(params, rows, scores, np.asarray(chosen))
    questions = [evaluator.questions[i] for i in chosen]
    predictions = {question.id: text for question, text in zip(questions, answers.texts, strict=True)}
    matches = score_answers(questions, predictions).values["em"]
    judged = []
    for i, question in enumerate(questions):
        order = np.argsort(-answers.passage_attention[i])
        read = [
            (float(answers.passage_attention[i, n]), evaluator.store.passage(int(answers.rows[i, n]))) for n in order
        ]
        supported = any(contains_answer(f"{passage.title}\n{passage.text}", answers.texts[i]) for _, passage in read)
        confidence = math.exp(answers.log_probabilities[i])
        judged.append(JudgedAnswer(question, answers.texts[i], bool(matches[i]), confidence, supported, read))
    return judged


def show_answers(answers: Sequence[JudgedAnswer], console: Console) -> None:
    """Prints each answer with what was expected, and how many are right."""

    def show(line: str) -> None:
        console.print(line, highlight=False)

    for answer in answers:
        colour = "red" if not answer.right else "green" if answer.supported else "yellow"
        support = "a passage that was read contains it" if answer.supported else "no passage that was read contains it"
        expected = escape(" / ".join(answer.question.answers))
        show(f"\n[bold]{escape(answer.question.text)}[/bold] ({answer.question.language})")
        show(
            f"  [{colour}]{'right' if answer.right else 'wrong'}[/{colour}]: [bold]{escape(answer.text)}[/bold] "
            f"(expected: {expected}; confidence {answer.confidence:.2f}; {support})"
        )
        for attention, passage in answer.passages[:_SHOWN_PASSAGES]:
            show(f"  {attention:.2f} of the reader's attention: {escape(f'{passage.title}: {passage.text[:100]}')}")
    unsupported = sum(answer.right and not answer.supported for answer in answers)
    note = f" ({unsupported} of them without a passage that contains the answer)" if unsupported else ""
    show(f"\nright: {sum(answer.right for answer in answers)} of {len(answers)}{note}")
