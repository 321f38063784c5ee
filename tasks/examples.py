# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions as seqio examples.

Token features, int32:
  `inputs` [Q]: the question as the encoder reads it, without end of sequence, at most 50 tokens;
  `targets` [A]: the first answer with end of sequence, at most 50 tokens; empty where there is no answer;
  `answers` [answers, A]: every answer, padded with 0;
  `english` [Q]: the English counterpart, like `inputs`; empty where there is none.
The 50 are the default: `sequence_length` sets other lengths, that of `targets` for `answers`, too.
Texts: `id`, `language`, `question` and `english_question` (as published), and seqio's `*_pretokenized`.
Order: `collection`, the mixture that the task was registered with, and `row`, int64, the question's place in its files.
"""

from collections.abc import Iterable, Mapping

import seqio
import tensorflow as tf

from class_jax.corpus.inputs import question_text
from class_jax.questions.question import Question

MAX_QUESTION_TOKENS = 50
MAX_ANSWER_TOKENS = 50


def add_task(
    name: str,
    collection: str,
    language: str,
    splits: Mapping[str, Iterable[Question]],
    sizes: Mapping[str, int],
    vocabulary_file: str,
) -> None:
    """Adds the questions in one language to seqio's registry, as a task.

    Args:
      name: of the task.
      collection: the name of the mixture that it is part of.
      language: of its questions.
      splits: the questions of each split, in all languages.
      sizes: number of questions of each split in this language.
      vocabulary_file: SentencePiece model file.
    """

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # seqio shuffles the examples; a question file is one shard
        numbered = enumerate(splits[split])
        return dataset_of(((row, q) for row, q in numbered if q.language == language), collection)

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


def dataset_of(questions: Iterable[tuple[int, Question]], collection: str) -> tf.data.Dataset:
    """Returns a dataset of texts, one element for each question and its row.

    The texts are held as tensors rather than generated, because tf.data can't save the position of an
    iterator over a Python generator.
    """
    texts = ("id", "language", "question", "english_question", "inputs", "english", "targets")
    columns: dict[str, list] = {key: [] for key in (*texts, "answers", "row")}
    for row, question in questions:
        columns["row"].append(row)
        columns["id"].append(question.id)
        columns["language"].append(question.language)
        columns["question"].append(question.text)
        columns["english_question"].append(question.english or "")
        columns["inputs"].append(question_text(question.text, question.language))
        columns["english"].append(question_text(question.english, "en") if question.english else "")
        columns["targets"].append(question.answers[0] if question.answers else "")
        columns["answers"].append(list(question.answers))
    tensors = {key: tf.constant(columns[key], tf.string) for key in texts}
    tensors["row"] = tf.constant(columns["row"], tf.int64)
    tensors["collection"] = tf.fill([len(columns["row"])], collection)
    tensors["answers"] = tf.ragged.constant(columns["answers"], dtype=tf.string, ragged_rank=1)
    return tf.data.Dataset.from_tensor_slices(tensors)


def cut_and_end(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    sequence_length: Mapping[str, int] | None = None,
) -> tf.data.Dataset:
    """Cuts token features to `sequence_length`, or to 50 tokens where it names no length, and ends answers.

    seqio's own `append_eos_after_trim` cuts nothing where the caller gives no `sequence_length`, and would
    make an answer of one end of sequence out of a missing one.
    """
    given = sequence_length or {}
    questions = {key: given.get(key) or MAX_QUESTION_TOKENS for key in ("inputs", "english")}
    answer_tokens = given.get("targets") or MAX_ANSWER_TOKENS
    eos_id = output_features["targets"].vocabulary.eos_id

    def cut(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        example = dict(example)
        for key, length in questions.items():
            example[key] = example[key][:length]
        answers = example["answers"]  # ragged: one row of tokens an answer
        ends = tf.fill([answers.nrows(), 1], tf.constant(eos_id, tf.int32))
        example["answers"] = tf.concat([answers[:, : answer_tokens - 1], ends], axis=1).to_tensor(0)
        end = tf.fill([tf.cast(answers.nrows() > 0, tf.int32)], tf.constant(eos_id, tf.int32))
        example["targets"] = tf.concat([example["targets"][: answer_tokens - 1], end], axis=0)
        return example

    return dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
