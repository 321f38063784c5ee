# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions as seqio examples.

Token features, int32:
  `inputs` [Q]: the question as the encoder reads it, without end of sequence, at most 50 tokens;
  `targets` [A]: the first answer with end of sequence, at most 50 tokens; empty where there is no answer;
  `answers` [answers, A]: every answer, padded with 0;
  `english` [Q]: the English counterpart, like `inputs`; empty where there is none.
Texts: `id`, `language`, `question` and `english_question` (as published), and seqio's `*_pretokenized`.
"""

from collections.abc import Callable, Iterable, Mapping

import seqio
import tensorflow as tf

from class_jax.corpus.inputs import question_text
from class_jax.questions.readers import Question

MAX_QUESTION_TOKENS = 50
MAX_ANSWER_TOKENS = 50


def add_task(
    name: str,
    splits: Mapping[str, Callable[[], Iterable[Question]]],
    sizes: Mapping[str, int],
    vocabulary_file: str,
) -> None:
    """Adds a task to seqio's registry.

    Args:
      name: of the task.
      splits: a reader for each split.
      sizes: number of questions of each split.
      vocabulary_file: SentencePiece model file.
    """

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # seqio shuffles the examples; a question file is one shard
        return dataset_of(splits[split]())

    vocabulary = seqio.SentencePieceVocabulary(vocabulary_file)
    question = seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset_fn=dataset, splits=tuple(splits), num_input_examples=dict(sizes)),
        preprocessors=[seqio.preprocessors.tokenize, cut_and_end],
        output_features={
            "inputs": question,
            "targets": seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32),
            "answers": seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32, rank=2, required=False),
            "english": seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32, required=False),
        },
    )


def dataset_of(questions: Iterable[Question]) -> tf.data.Dataset:
    """Returns a dataset of texts, one element per question.

    The texts are held as tensors rather than generated, because tf.data can't save the position of an
    iterator over a Python generator.
    """
    columns: dict[str, list] = {
        key: [] for key in ("id", "language", "question", "english_question", "inputs", "english", "targets", "answers")
    }
    for question in questions:
        columns["id"].append(question.id)
        columns["language"].append(question.language)
        columns["question"].append(question.text)
        columns["english_question"].append(question.english or "")
        columns["inputs"].append(question_text(question.text, question.language))
        columns["english"].append(question_text(question.english, "en") if question.english else "")
        columns["targets"].append(question.answers[0] if question.answers else "")
        columns["answers"].append(list(question.answers))
    tensors = {key: tf.constant(column, tf.string) for key, column in columns.items() if key != "answers"}
    tensors["answers"] = tf.ragged.constant(columns["answers"], dtype=tf.string, ragged_rank=1)
    return tf.data.Dataset.from_tensor_slices(tensors)


def cut_and_end(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
) -> tf.data.Dataset:
    """Cuts token features to their lengths (or to `sequence_length`, where that is shorter) and ends answers.

    seqio's own `append_eos_after_trim` cuts nothing where the caller gives no `sequence_length`, and would
    make an answer of one end of sequence out of a missing one.
    """
    limits = {
        key: MAX_ANSWER_TOKENS if feature.add_eos else MAX_QUESTION_TOKENS for key, feature in output_features.items()
    }
    for key in ("inputs", "targets", "english"):
        if sequence_length and sequence_length.get(key):
            limits[key] = min(limits[key], sequence_length[key])
    eos_id = output_features["targets"].vocabulary.eos_id

    def cut(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        example = dict(example)
        for key in ("inputs", "english"):
            example[key] = example[key][: limits[key]]
        answers = example["answers"]  # ragged: one row of tokens an answer
        ends = tf.fill([answers.nrows(), 1], tf.constant(eos_id, tf.int32))
        example["answers"] = tf.concat([answers[:, : limits["answers"] - 1], ends], axis=1).to_tensor(0)
        end = tf.fill([tf.cast(answers.nrows() > 0, tf.int32)], tf.constant(eos_id, tf.int32))
        example["targets"] = tf.concat([example["targets"][: limits["targets"] - 1], end], axis=0)
        return example

    return dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
