# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a training step is given: the stage and a typed batch.

Axes: B questions (stage 1: pairs), N passages per question, Q question tokens, P passage tokens, A answer tokens.
"""

import dataclasses
import enum
from typing import NamedTuple

import jax

from class_jax.errors import InputError, nearest
from class_jax.models.packing import Slots


class Stage(enum.StrEnum):
    """What a run minimises.

    `STAGE1` distils an English teacher on parallel questions (paper, section 3.1); `END_TO_END` trains reader and
    retriever together on questions and answers (section 3.2.2): stage 2 and all fine-tuning.
    """

    STAGE1 = "stage1"
    END_TO_END = "end_to_end"

    @classmethod
    def parse(cls, value: str, key: str = "stage") -> "Stage":
        """Returns the stage of that name.

        Raises:
          InputError: for an unknown name; the message has `key` and the nearest name.
        """
        try:
            return cls(value)
        except ValueError as error:
            remedy = nearest(str(value), [stage.value for stage in cls])
            raise InputError(f"unknown value {value!r}", key=key, remedy=remedy) from error


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TokenSlots:
    """How many slots the packed tokens of a batch take in each micro-batch. Static: a part of the batch without arrays.

    Attributes:
      passages: of passages by themselves. rows: for joint rows of question and passage, None where none are read.
      micro_batches: the number of micro-batches that the slots were counted for.
    """

    passages: Slots
    rows: Slots | None
    micro_batches: int


class Batch(NamedTuple):
    """Token ids (padded with 0) and lengths of a step's texts, int32; a field is None where it does not apply.

    A host builds a slice of every array ([B / hosts, ...]); on the device the arrays are global.

    Attributes:
      question_ids: [B, Q]; in stage 1 [2B, Q], the B English questions before the B parallel ones.
      question_lengths: [B] or [2B].
      passage_ids: [B, N, P]; a pair of stage 1 shares its passages. passage_lengths: [B, N].
      answer_ids: [B, A] or [2B, A]. answer_lengths: [B] or [2B], 0 for a question without answers.
      token_slots: present where the tokens of passages and joint rows are packed; the loss is the same.
      teacher_scores: [B, B * N] float32, the teacher's scores of the English questions and all passages of the global
        batch, in the order of `passage_ids`, divided by the temperature.
      teacher_attention: the teacher's P_ca, [B, N] float32, or only of the pairs that are read.
      teacher_question_ids: [B, Q] English questions in the vocabulary of a teacher that is a model; Q is its own.
      teacher_question_lengths: [B].
      teacher_passage_ids: [B, N, P] in the teacher's vocabulary; P is its own. teacher_passage_lengths: [B, N].
      teacher_token_slots: `token_slots` of the teacher's tokens.
    """

    question_ids: jax.Array
    question_lengths: jax.Array
    passage_ids: jax.Array
    passage_lengths: jax.Array
    answer_ids: jax.Array | None = None
    answer_lengths: jax.Array | None = None
    token_slots: TokenSlots | None = None
    teacher_scores: jax.Array | None = None
    teacher_attention: jax.Array | None = None
    teacher_question_ids: jax.Array | None = None
    teacher_question_lengths: jax.Array | None = None
    teacher_passage_ids: jax.Array | None = None
    teacher_passage_lengths: jax.Array | None = None
    teacher_token_slots: TokenSlots | None = None

    def read_by_teacher(self) -> "Batch":
        """Returns the questions and passages in the teacher's vocabulary as a batch; it has no answers."""
        return Batch(
            self.teacher_question_ids,
            self.teacher_question_lengths,
            self.teacher_passage_ids,
            self.teacher_passage_lengths,
            token_slots=self.teacher_token_slots,
        )
