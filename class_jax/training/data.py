# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a run trains on: vocabulary, token store, questions; opened from files and checked against the model."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from class_jax.common.files import numbered_lines
from class_jax.corpus.passage_languages import languages_of_store
from class_jax.corpus.store import TokenStore, build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig
from class_jax.questions.question import Question
from class_jax.questions.table import QuestionTable
from class_jax.retrieval.filters import Allowed, in_languages
from class_jax.tasks import Mixture

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where a run's data is.

    Attributes:
      vocabulary: a SentencePiece model, by path or hub id.
      store: folder of the token store; built from `passages` where it is missing.
      questions: training questions: a mixture that is registered with seqio when the data is opened
        (`class_jax.tasks.mixture`); or the name of one that is registered already; or, where TensorFlow is not
        installed, a reader of `class_jax.questions.readers`, or several in a sequence. All give the same rows.
      passages: the public passage TSV.
      passage_languages: TSV `id, language` (more columns are ignored), for corpora of several languages.
      search_languages: languages of the passages that training retrieves; "question" is the question's own.
        None for all.
      own_passages: TSV `question id, passage id`: the passage that each synthetic question was made from.
      max_passage_tokens: longer passages are cut.
      max_question_tokens: longer training questions are cut.
      language_exponent: of language sampling, p_i ~ n_i ** exponent. It decides how training samples, and a mixture
        is registered with rates that say the same; the rates of one that is registered already are not used.
    """

    vocabulary: str
    store: str
    questions: Mixture | str | Iterable[Question] | Sequence[Iterable[Question]]
    passages: str | None = None
    passage_languages: str | None = None
    search_languages: Sequence[str] | None = None
    own_passages: str | None = None
    max_passage_tokens: int = 200
    max_question_tokens: int = 50
    language_exponent: float = 0.5


class TrainingData(NamedTuple):
    """Opened data.

    Attributes:
      vocabulary: the vocabulary.
      store: the passages.
      table: the training questions.
      languages: language code of each passage [M], or None where not given.
      allowed: passages that training may retrieve; see `class_jax.retrieval.filters`.
    """

    vocabulary: Vocabulary
    store: TokenStore
    table: QuestionTable
    languages: np.ndarray | None
    allowed: Allowed


def open_data(config: DataConfig, model: ModelConfig, hosts: ProcessGroup = SINGLE_PROCESS) -> TrainingData:
    """Opens (and builds, where missing) what `config` names. Of several hosts, host 0 builds.

    Raises:
      InputError: for unusable files, and for a vocabulary that the model's embedding can't hold.
    """
    vocabulary = Vocabulary.load(config.vocabulary)
    check_vocabulary(vocabulary, model)
    store = hosts.first("token store", lambda: open_store(config.store, vocabulary, config))
    table = _question_table(config, vocabulary)
    if config.own_passages is not None:
        own = _read_own_passages(config.own_passages, store)
        rows = np.array([own.get(table.id(row), -1) for row in range(len(table))], np.int64)
        table = dataclasses.replace(table, own_passages=rows)
    languages = None if config.passage_languages is None else languages_of_store(config.passage_languages, store)
    asked = np.array(table.languages)[table.language_codes]
    allowed = in_languages(languages, config.search_languages, asked)
    return TrainingData(vocabulary, store, table, languages, allowed)


def _question_table(config: DataConfig, vocabulary: Vocabulary) -> QuestionTable:
    questions, cut = config.questions, config.max_question_tokens
    if isinstance(questions, Mixture):
        questions = questions.register(config.vocabulary, config.language_exponent)
    if isinstance(questions, str):
        return QuestionTable.from_task(questions, max_question_tokens=cut)
    return QuestionTable.from_questions(_flat(questions), vocabulary, max_question_tokens=cut)


def open_store(folder: str, vocabulary: Vocabulary, config: DataConfig) -> TokenStore:
    """Opens a token store in a vocabulary, building it from `config.passages` where it is missing.

    Raises:
      InputError: if it is missing and there are no passages, or it is damaged or of another vocabulary.
    """
    if not Path(folder).exists():
        if config.passages is None:
            raise InputError("no token store there", file=folder, remedy="set DataConfig.passages to build it")
        _log.info("building the token store %s from %s", folder, config.passages)
        build_store(config.passages, vocabulary, folder, max_tokens=config.max_passage_tokens)
    return TokenStore.open(folder, vocabulary)


def check_vocabulary(vocabulary: Vocabulary, model: ModelConfig) -> None:
    """Raises InputError if the model's embedding has fewer rows than the vocabulary has pieces."""
    if vocabulary.size > model.vocab_size:
        raise InputError(
            f"has shape {(model.vocab_size, model.d_model)}, the vocabulary needs {(vocabulary.size, model.d_model)}",
            key="embed/embedding",
            file=vocabulary.path,
            remedy=f"set ModelConfig.vocab_size to at least {vocabulary.size}, or use the model's own vocabulary",
        )


def _read_own_passages(path: str, store: TokenStore) -> dict[str, int]:
    own = {}
    for line, text in numbered_lines(path):
        row = text.split("\t")
        if len(row) != 2:
            raise InputError(f"{len(row)} columns instead of 2", file=path, line=line, remedy="question<TAB>passage")
        own[row[0]] = _row(store, row[1], path, line)
    return own


def _row(store: TokenStore, id_: str, path: str | Path, line: int) -> int:
    try:
        return store.row(id_)
    except InputError as error:
        raise InputError("unknown passage id", file=path, line=line, key=id_, remedy="use the corpus's ids") from error


def _flat(questions: Iterable) -> Iterable[Question]:
    for item in questions:
        if isinstance(item, Question):
            yield item
        else:
            yield from item
