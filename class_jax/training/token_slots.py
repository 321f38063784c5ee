# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How many slots the packed tokens of a batch take (`class_jax.models.packing` packs them).

A cell is what one device encodes or reads of one micro-batch. All cells of a batch get as many slots as the fullest
needs, rounded up: each size is compiled by itself, so there should be few.
"""

import dataclasses

import numpy as np

from class_jax.errors import InputError
from class_jax.models.packing import Slots
from class_jax.objectives.batch import Stage, TokenSlots

# A size has this many leading binary digits, the rest is 0: neighbours are 1.6% to 3.1% apart.
_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Packer:
    """Finds the slots of batches.

    Attributes:
      ways: devices over which a batch is cut.
      micro_batches, queries, read_pairs: as in `class_jax.objectives.objectives.ObjectiveConfig`; the latter two matter
        only in stage 1.
    """

    ways: int = 1
    micro_batches: int = 1
    queries: str = "both"
    read_pairs: int | None = None

    def __call__(self, question_lengths: np.ndarray, passage_lengths: np.ndarray, *, stage: Stage) -> TokenSlots:
        """Finds the slots of a batch.

        Args:
          question_lengths: tokens of the questions of the whole batch, of all hosts, [B]; in stage 1 of the English
            ones, then of the parallel ones, [2B] ([B] for a teacher, which reads only the English ones).
          passage_lengths: of their passages, [B, N].
          stage: of training; in stage 1 only some pairs may be read.

        Returns:
          Slots that hold every cell's tokens; the same on all hosts.

        Raises:
          InputError: the micro-batches don't divide the questions.
        """
        B, N = passage_lengths.shape
        questions = question_lengths.reshape(-1, B).astype(np.int64)  # [S, B]
        if len(questions) == 2 and self.queries != "both":
            questions = questions[:1] if self.queries == "english" else questions[1:]
        read = B if stage is Stage.END_TO_END or self.read_pairs is None else min(self.read_pairs, B)
        tokens = passage_lengths.sum(axis=1, dtype=np.int64)  # [B]
        joint = (N * questions + tokens).sum(axis=0)[:read]
        return TokenSlots(self._slots(tokens), self._slots(joint) if read else None, self.micro_batches)

    def _slots(self, tokens: np.ndarray) -> Slots:
        """Slots of one micro-batch, from the tokens of each question, [B]."""
        if len(tokens) % self.micro_batches:
            raise InputError(
                f"{self.micro_batches} pieces of {len(tokens)} questions",
                key="ObjectiveConfig.micro_batches",
                remedy="choose a number that divides them",
            )
        # Piece m has every micro_batches-th question from m on (`objectives.in_micro_batches`). Where the devices
        # divide it, each has as many of its questions that follow each other.
        pieces = tokens.reshape(-1, self.micro_batches)
        groups = self.ways if len(pieces) % self.ways == 0 else 1
        cells = pieces.reshape(groups, -1, self.micro_batches).sum(axis=1)
        return Slots(groups, round_up(int(cells.max())))


def round_up(size: int) -> int:
    """The next size of those that slots come in."""
    unit = 1 << max(0, (size - 1).bit_length() - _DIGITS)
    return -(-size // unit) * unit
