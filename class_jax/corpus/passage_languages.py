# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The languages of passages: a TSV of passage id and language, beside the passages themselves."""

import os
from collections.abc import Iterator

import numpy as np

from class_jax.common.files import numbered_lines
from class_jax.corpus.inputs import language_code
from class_jax.corpus.store import TokenStore
from class_jax.errors import InputError


def read_passage_languages(path: str | os.PathLike) -> Iterator[tuple[int, str, str]]:
    """Yields line number, passage id and language code of each row; a header row and blank lines are skipped.

    Args:
      path: TSV whose first columns are id and language; further columns are ignored.

    Raises:
      InputError: for a row of fewer columns or an unknown language, with its line.
    """
    for line, text in numbered_lines(path):
        row = text.split("\t")
        if not text.strip() or (line == 1 and row[0] == "id"):
            continue
        if len(row) < 2:
            raise InputError(f"{len(row)} columns instead of 2", file=path, line=line, remedy="id<TAB>language")
        yield line, row[0], language_code(row[1], file=path, line=line)


def languages_by_id(path: str | os.PathLike) -> dict[str, str]:
    """Returns the language of each passage that a file names, by passage id; raises as `read_passage_languages`."""
    return {name: code for _, name, code in read_passage_languages(path)}


def languages_of_store(path: str | os.PathLike, store: TokenStore) -> np.ndarray:
    """Returns the language of each passage of a token store, [M] unicode.

    Args:
      path: see `read_passage_languages`.
      store: whose passages the file names.

    Raises:
      InputError: as `read_passage_languages`; for an unknown passage id, and for a passage without a language.
    """
    languages = np.full(store.num_passages, "", dtype="U8")
    for line, name, code in read_passage_languages(path):
        try:
            languages[store.row(name)] = code
        except InputError as error:
            remedy = "use the corpus's ids"
            raise InputError("unknown passage id", file=path, line=line, key=name, remedy=remedy) from error
    if (missing := np.flatnonzero(languages == "")).size:
        raise InputError(f"{missing.size} passages have no language", file=path, key=store.id(int(missing[0])))
    return languages
