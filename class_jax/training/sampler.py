# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Which questions a step trains on: an endless stream over languages, computable at any step.

Languages are drawn in proportion to their number of questions to the power 0.5 (paper section 3.1), and each
language goes through its questions in a fresh order every epoch.

The stream has no state. Draw number i belongs to block ``i // S``. How often each language occurs before a
block is a closed formula (its share times the draws so far, rounded so that the counts of all languages sum to
the draws exactly), so its place in its own epochs is known without replaying anything; inside a block the order
of languages is a permutation seeded by (seed, block). Any step can therefore be computed directly, and the long-run
shares are exact instead of merely expected.
"""

import math
from collections.abc import Sequence

import numpy as np

from class_jax.errors import InputError

_SHARE_BITS = 40
_MIN_BLOCK = 1024


def counter_rng(seed: int, *counters: int) -> np.random.Generator:
    """Returns a Philox generator that depends only on the seed and the counters."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *counters))))


def language_shares(counts: Sequence[int], exponent: float = 0.5) -> np.ndarray:
    """Returns p_i = n_i^exponent / sum_j n_j^exponent for the numbers of questions n, [languages] float64."""
    weights = np.asarray(counts, np.float64) ** exponent
    return weights / weights.sum()


class LanguageSampler:
    """An endless, stateless stream of question rows.

    Args:
      language_codes: language of each question row, [questions] ints.
      seed: two samplers with the same codes, seed and exponent give the same stream.
      exponent: 1 samples questions alike, 0 languages alike, 0.5 is the paper's.

    Raises:
      InputError: there is no question, or the seed is negative.
    """

    def __init__(self, language_codes: np.ndarray, seed: int, exponent: float = 0.5):
        codes = np.asarray(language_codes)
        if codes.size == 0:
            raise InputError("there is no question to train on", key="questions", remedy="check the question files")
        if seed < 0:
            raise InputError(f"seed {seed} is negative", key="seed", remedy="use 0 or more")
        self.seed = int(seed)
        self.exponent = float(exponent)
        self.codes, counts = np.unique(codes, return_counts=True)
        self._rows = [np.flatnonzero(codes == code) for code in self.codes]
        self.shares = language_shares(counts, exponent)
        # Integer bounds make the counts below exact however far the stream goes.
        bounds = np.round(np.cumsum(self.shares) * 2**_SHARE_BITS).astype(object)
        self._bounds = [0, *(int(bound) for bound in bounds[:-1]), 2**_SHARE_BITS]
        # A block must hold at least two draws of the rarest language, or rounding could take one back.
        smallest = min(np.diff(np.array(self._bounds, object)))
        if smallest < 1:
            raise InputError(
                "a language is too rare to be sampled", key="exponent", remedy="lower it or drop the language"
            )
        self.block_size = max(_MIN_BLOCK, 2 ** math.ceil(math.log2(2 * 2**_SHARE_BITS / smallest)))
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def rows(self, step: int, batch_size: int) -> np.ndarray:
        """Returns the question rows of a step, [B] int64, whatever was asked for before.

        Two steps continue each other only under the same batch size.
        """
        return self.draws(step * batch_size, (step + 1) * batch_size)

    def draws(self, start: int, stop: int) -> np.ndarray:
        """Returns the question rows of draws start..stop-1, [stop - start] int64."""
        parts = []
        while start < stop:
            block, offset = divmod(start, self.block_size)
            taken = min(stop - start, self.block_size - offset)
            languages, positions = self._block_at(block)
            parts.append(self._resolve(languages[offset : offset + taken], positions[offset : offset + taken]))
            start += taken
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _drawn_before(self, draws: int) -> np.ndarray:
        """Returns how often each language occurs in the first `draws` draws; the sum is `draws`."""
        marks = [draws * bound >> _SHARE_BITS for bound in self._bounds]
        return np.diff(np.array(marks, np.int64))

    def _block_at(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (language index, position in that language's own stream) of each draw of a block."""
        kept = self._block  # read once: a prefetching thread and a refresher may share the sampler
        if kept is not None and kept[0] == block:
            return kept[1:]
        before = self._drawn_before(block * self.block_size)
        quota = self._drawn_before((block + 1) * self.block_size) - before
        languages = np.repeat(np.arange(len(quota), dtype=np.int32), quota)
        counter_rng(self.seed, 0, block).shuffle(languages)
        positions = np.empty(self.block_size, np.int64)
        for i, first in enumerate(before):
            positions[languages == i] = first + np.arange(quota[i])
        self._block = (block, languages, positions)
        return languages, positions

    def _resolve(self, languages: np.ndarray, positions: np.ndarray) -> np.ndarray:
        rows = np.empty(len(languages), np.int64)
        for i in np.unique(languages):
            places = np.flatnonzero(languages == i)
            epochs, within = np.divmod(positions[places], len(self._rows[i]))
            for epoch in np.unique(epochs):
                chosen = epochs == epoch
                rows[places[chosen]] = self._order(int(i), int(epoch))[within[chosen]]
        return rows

    def _order(self, language: int, epoch: int) -> np.ndarray:
        kept = self._orders.get(language)
        if kept is not None and kept[0] == epoch:
            return kept[1]
        order = counter_rng(self.seed, 1, language, epoch).permutation(self._rows[language])
        self._orders[language] = (epoch, order)
        return order
