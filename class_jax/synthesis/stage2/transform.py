# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stage 2, second half: sentences with their answers become questions (paper section 3.2.1, "Query Transformation").

`Transformer` is the interface. `PromptTransformer` asks a language model, whichever runs it: an endpoint
(`llm.client.ChatClient`) or this machine (`llm.local.LocalChatModel`). `rules` needs
none. What comes out is still to be validated (`class_jax.synthesis.stage2.validate`).
"""

import dataclasses
import hashlib
import itertools
import json
import os
import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from class_jax.common.files import numbered_lines, replacing
from class_jax.errors import InputError
from class_jax.llm.chat import ChatModel, ChatRequest, Failure, Reply
from class_jax.synthesis.stage2.anchors import AnchorExample
from class_jax.synthesis.stage2.prompts import PROMPTS, MetaExample, bulk_messages, meta_messages, parse_reply
from class_jax.synthesis.stage2.validate import ValidationConfig, problem_of

_TRIES_PER_META_EXAMPLE = 8


@dataclass(frozen=True, slots=True)
class Draw:
    """One question to be made of an example; further ones differ in `variant`."""

    example: AnchorExample
    variant: int = 0

    @property
    def id(self) -> str:
        """The question's id, beginning with its language."""
        return f"{self.example.id}-{self.variant}"


@dataclass(frozen=True, slots=True)
class Transformed:
    """A question made of an example."""

    draw: Draw
    question: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A draw that became no question.

    Attributes:
      draw: it.
      reason: a word to count by.
      detail: what was found, for a reader.
    """

    draw: Draw
    reason: str
    detail: str = ""


@runtime_checkable  # Beam checks the arguments of its functions
class Transformer(Protocol):
    """Makes questions of examples."""

    def transform(self, draws: Iterable[Draw]) -> Generator[Transformed | Rejected, None, None]:
        """Yields one outcome for each draw, in their order; reads only some draws ahead."""


@dataclass(frozen=True)
class PromptConfig:
    """How a model is prompted.

    Attributes:
      meta_examples: how many are made for each language (paper: 32).
      shown: how many of them each prompt shows, drawn at random by the draw's id (paper: 3).
      temperature: of bulk generation; meta-examples are drawn at the same.
      max_tokens: of a reply.
      seed: of all that is drawn.
    """

    meta_examples: int = 32
    shown: int = 3
    temperature: float = 0.7
    max_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.shown < self.meta_examples:
            remedy = "show fewer than there are meta-examples"
            raise InputError(f"{self.shown} of {self.meta_examples}", key="PromptConfig.shown", remedy=remedy)


class PromptTransformer:
    """Few-shot prompting in the manner of the paper's Appendix E.

    Args:
      model: what answers.
      meta_examples: by language.
      config: how it is prompted.

    Raises:
      InputError: if a language has no more meta-examples than a prompt shows (a sentence's own is left out).
    """

    def __init__(self, model: ChatModel, meta_examples: Mapping[str, Sequence[MetaExample]], config: PromptConfig):
        for language, examples in meta_examples.items():
            if len({example.sentence for example in examples}) <= config.shown:
                problem = f"too few meta-examples of different sentences, a prompt shows {config.shown} others"
                raise InputError(problem, key=f"language {language!r}", remedy="give more")
        self._model, self._meta, self._config = model, meta_examples, config

    def transform(self, draws: Iterable[Draw]) -> Generator[Transformed | Rejected, None, None]:
        """Asks the model once a draw.

        Reasons of rejects: those of `llm.client.Failure`, ``cut_off`` (the reply was longer than `max_tokens`),
        ``no_reply`` (it holds no text).

        Raises:
          InputError: for a language without meta-examples; and what the model raises.
        """
        for draw, outcome in self._model.complete((draw, self.request(draw)) for draw in draws):
            yield _question(draw, outcome)

    def request(self, draw: Draw) -> ChatRequest:
        """Returns what the model is asked for a draw: the same for the same draw, settings and meta-examples."""
        known = self._meta.get(draw.example.language)
        if known is None:
            raise InputError("has no meta-examples", key=f"language {draw.example.language!r}")
        others = [meta for meta in known if meta.sentence != draw.example.sentence]
        number = _number(draw.id, self._config.seed)
        shown = random.Random(number).sample(others, self._config.shown)
        config = self._config
        return ChatRequest(bulk_messages(draw.example, shown), config.max_tokens, config.temperature, number % 2**31)


def make_meta_examples(
    model: ChatModel, examples: Iterable[AnchorExample], language: str, config: PromptConfig, rules: ValidationConfig
) -> list[MetaExample]:
    """Lets a large model make the examples that prompts show (the paper's Prompt 3.1), and keeps the valid ones.

    Args:
      model: what answers.
      examples: of this language, in a random order; as many are read as are needed.
      language: its code.
      config: how many.
      rules: what makes a question valid.

    Raises:
      InputError: if eight tries for each meta-example, or all examples, are not enough.
    """
    found: dict[str, MetaExample] = {}
    source = itertools.islice(examples, _TRIES_PER_META_EXAMPLE * config.meta_examples)
    while len(found) < config.meta_examples:
        # As many as are missing at a time: a large model's replies are expensive.
        batch = [Draw(example) for example in itertools.islice(source, config.meta_examples - len(found))]
        if not batch:
            problem = f"only {len(found)} of {config.meta_examples} meta-examples are valid questions"
            remedy = "take a better model for them, or write them yourself"
            raise InputError(problem, key=f"language {language!r}", remedy=remedy)
        for draw, outcome in model.complete((draw, _meta_request(draw, config)) for draw in batch):
            made = _question(draw, outcome)
            if isinstance(made, Transformed) and problem_of(made.question, draw.example, rules) is None:
                example = draw.example
                # A second question about a sentence would teach no more than the first.
                found.setdefault(
                    example.sentence,
                    MetaExample(language, example.sentence, example.question_word, example.answer, made.question),
                )
    return list(found.values())


def fingerprint_of(
    model: str, meta_examples: Mapping[str, Sequence[MetaExample]], config: PromptConfig, template: str = PROMPTS
) -> str:
    """Returns a digest of all that decides on what a `PromptTransformer` makes.

    Args:
      model: the model's own fingerprint.
      meta_examples, config: as the transformer is given them.
      template: of the prompts.
    """
    parts = [model, dataclasses.asdict(config), template]
    parts += [[dataclasses.asdict(m) for m in meta_examples[language]] for language in sorted(meta_examples)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_meta_examples(path: str | os.PathLike, language: str) -> list[MetaExample]:
    """Reads meta-examples, made or written: JSON lines of sentence, word, answer and question.

    Raises:
      InputError: for a missing file or a line without these four texts.
    """
    found = []
    for number, line in numbered_lines(path):
        try:
            record = json.loads(line)
            texts = [record[name] for name in ("sentence", "word", "answer", "question")]
        except (ValueError, KeyError, TypeError) as error:
            remedy = 'a line is {"sentence": ..., "word": ..., "answer": ..., "question": ...}'
            raise InputError(f"no meta-example ({error!r})", file=path, line=number, remedy=remedy) from error
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError("an empty text", file=path, line=number)
        found.append(MetaExample(language, *texts))
    return found


def write_meta_examples(path: str | os.PathLike, examples: Iterable[MetaExample]) -> None:
    """Writes what `read_meta_examples` reads."""
    with replacing(Path(path)) as f:
        f.writelines(json.dumps(dataclasses.asdict(example), ensure_ascii=False) + "\n" for example in examples)


def _meta_request(draw: Draw, config: PromptConfig) -> ChatRequest:
    seed = _number(draw.id, config.seed) % 2**31
    return ChatRequest(meta_messages(draw.example), config.max_tokens, config.temperature, seed)


def _question(draw: Draw, outcome: Reply | Failure) -> Transformed | Rejected:
    if isinstance(outcome, Failure):
        return Rejected(draw, outcome.reason, outcome.detail)
    question, whole = parse_reply(outcome.text)
    if not question:
        return Rejected(draw, "no_reply", outcome.text[:200])
    if outcome.finish_reason == "length" and not whole:
        return Rejected(draw, "cut_off", question)
    return Transformed(draw, question)


def _number(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\t{text}".encode()).digest()[:8], "big")
