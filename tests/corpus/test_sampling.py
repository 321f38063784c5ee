# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A sample of a stream: every text has the same chance."""

from collections import Counter

import pytest

from class_jax.corpus.sampling import uniform_sample

pytestmark = pytest.mark.core


def test_every_text_has_the_same_chance():
    texts = [str(number) for number in range(40)]
    drawn = Counter(text for seed in range(1000) for text in uniform_sample(iter(texts), 10, seed))
    assert sum(drawn.values()) == 10_000
    assert all(190 < drawn[text] < 310 for text in texts)  # 250 expected; four standard deviations


def test_the_same_seed_draws_the_same_and_few_texts_are_all_kept():
    assert uniform_sample("abcdef", 3, 5) == uniform_sample("abcdef", 3, 5)
    assert uniform_sample("abc", 10, 0) == ["a", "b", "c"]
