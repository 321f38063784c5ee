# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Sets of passages that questions may retrieve."""

import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.retrieval.filters import OWN_LANGUAGE, SearchFilters, in_languages

pytestmark = pytest.mark.core

LANGUAGES = np.array(["en", "fi", "ru", "en", "fi", "ru"])
ASKED = ["ru", "fi", "ru", "fi"]


def test_one_set_for_all():
    assert in_languages(LANGUAGES, None, ASKED) is None
    assert in_languages(LANGUAGES, ("en", "fi"), ASKED).tolist() == [True, True, False, True, True, False]


@pytest.mark.parametrize("with_english", [False, True])
def test_each_question_s_own_language(with_english):
    spaces = in_languages(LANGUAGES, (OWN_LANGUAGE, "en") if with_english else (OWN_LANGUAGE,), ASKED)
    for question, language in enumerate(ASKED):
        wanted = (language == LANGUAGES) | (with_english & (LANGUAGES == "en"))
        assert spaces.masks[spaces.of[question]].tolist() == wanted.tolist()


def test_search_keeps_the_order_of_the_questions():
    spaces = in_languages(LANGUAGES, (OWN_LANGUAGE,), ASKED)
    calls = []

    def search(rows, mask):
        calls.append(rows.tolist())
        best = np.flatnonzero(mask)
        return np.stack([best + 10 * row for row in rows]), np.stack([best / (1 + row) for row in rows])

    rows, scores = spaces.search(np.array([3, 0, 2]), search)
    assert calls == [[3], [0, 2]]  # one search for each language that is asked
    assert rows.tolist() == [[31, 34], [2, 5], [22, 25]]
    np.testing.assert_allclose(scores, [[1 / 4, 1], [2, 5], [2 / 3, 5 / 3]])
    assert isinstance(spaces, SearchFilters)


@pytest.mark.parametrize(
    "languages, wanted, asked, problem",
    [
        (None, ("en",), ASKED, "needs the passages' languages"),
        (LANGUAGES, ("te",), ASKED, "no passage is in"),
        (LANGUAGES, (OWN_LANGUAGE,), ["fi", "te"], r"no passage is in \('te',\)"),
        (LANGUAGES, ("xx-unknown",), ASKED, "unknown language"),
    ],
)
def test_bad_languages_are_named(languages, wanted, asked, problem):
    with pytest.raises(InputError, match=problem):
        in_languages(languages, wanted, asked)
