# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What language models are asked, and how their replies are read.

The structures are the paper's, the sentences are not: Prompt 3.1 (sentence, question word, answer, form of the reply)
for meta-examples; Appendix E (one instruction, then blocks of sentence, question word, answer and question, the last
one open) for bulk generation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from class_jax.corpus.inputs import LANGUAGES
from class_jax.synthesis.stage2.anchors import AnchorExample

Messages = tuple[tuple[str, str], ...]

_META = """\
Statement: "{sentence}"
Write one question in {language} that someone might ask who has never read this statement. \
It asks with "{word}", the statement holds all that is needed to reply, and the reply is "{answer}". \
The words "{answer}" must not be in the question.
Give one line in this form:
Question: <your question>"""
_BULK = """\
Each statement below is followed by a question word, an answer that the statement holds, and a brief, exact question \
in {language} that asks for this answer with this word and does not name it. \
Complete the last one: give its question alone, on one line."""
_BLOCK = "Statement: {sentence}\nQuestion word: {word}\nAnswer: {answer}\nQuestion:"
PROMPTS = "\n".join((_META, _BULK, _BLOCK))
"""All that a model is given besides the examples: what is made by other prompts is other data."""

_THOUGHT = re.compile(r".*</think>", re.DOTALL)
_LABEL = re.compile(
    r"^[\s*#>]*(?:the )?(?:(?:transformed|rewritten) )?question(?: is)?[\s*]*[:：][\s*]*", re.IGNORECASE
)
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "『": "』", "'": "'", "‘": "’", "*": "*", "`": "`"}


@dataclass(frozen=True, slots=True)
class MetaExample:
    """A sentence and the question that a good model made of it, shown to a smaller model."""

    language: str
    sentence: str
    word: str
    answer: str
    question: str


def meta_messages(example: AnchorExample) -> Messages:
    """Returns the messages that ask for one meta-example (Prompt 3.1's structure)."""
    text = _META.format(
        sentence=example.sentence,
        word=example.question_word,
        answer=example.answer,
        language=LANGUAGES[example.language],
    )
    return (("user", text),)


def bulk_messages(example: AnchorExample, shown: Sequence[MetaExample]) -> Messages:
    """Returns the messages that ask for a question after the manner of some meta-examples (Appendix E's structure)."""
    blocks = [
        f"{_BLOCK.format(sentence=meta.sentence, word=meta.word, answer=meta.answer)} {meta.question}" for meta in shown
    ]
    blocks.append(_BLOCK.format(sentence=example.sentence, word=example.question_word, answer=example.answer))
    return (("user", "\n\n".join([_BULK.format(language=LANGUAGES[example.language]), *blocks])),)


def parse_reply(text: str) -> tuple[str, bool]:
    """Returns the question in a reply, empty if there is none, and whether something follows it.

    It is the line that is labelled as the question, else the first one; labels, quotes and emphasis around it go, as
    does what a reasoning model thought before.
    """
    lines = [line.strip() for line in _THOUGHT.sub("", text).split("\n") if line.strip()]
    for i, line in enumerate(lines):
        if _LABEL.match(line) and _bare(_LABEL.sub("", line)):
            return _bare(_LABEL.sub("", line)), i + 1 < len(lines)
    lines = [line for line in lines if not _LABEL.fullmatch(line)]
    return (_bare(lines[0]), len(lines) > 1) if lines else ("", False)


def _bare(line: str) -> str:
    line = " ".join(line.split())
    while len(line) > 1 and _QUOTES.get(line[0]) == line[-1]:
        line = line[1:-1].strip()
    return line
