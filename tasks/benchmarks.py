# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""TFDS builders of the public benchmarks, over the files as their authors publish them.

Put the files named in `MANUAL_DOWNLOAD_INSTRUCTIONS` into a folder, then
``prepare("xor_tydi_qa/retrieve", manual_dir, data_dir)``.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from class_jax.errors import InputError
from class_jax.questions import readers
from class_jax.questions.question import Question, rereadable


class _QuestionBuilder(tfds.core.GeneratorBasedBuilder):
    """What the benchmarks share: features `id`, `question`, `answers`, `language`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS wants a plain class attribute)
    HOMEPAGE = ""
    DESCRIPTION = ""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "question": tfds.features.Text(),
            "answers": tfds.features.Sequence(tfds.features.Text()),
            "language": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage=self.HOMEPAGE,
            # Exports keep the order of the published file, so that two of them are the same.
            disable_shuffling=True,
        )

    def _generate_examples(self, questions: Iterable[Question]) -> Iterator[tuple[int, dict]]:
        for i, question in enumerate(questions):
            yield (
                i,
                {
                    "id": question.id,
                    "question": question.text,
                    "answers": list(question.answers),
                    "language": question.language,
                },
            )


class XorTydiQa(_QuestionBuilder):
    """XOR-TyDi QA: cross-lingual open-retrieval question answering (Asai et al. 2021)."""

    HOMEPAGE = "https://nlp.cs.washington.edu/xorqa/"
    DESCRIPTION = "Questions in seven languages whose answers are found in English or multilingual Wikipedia."
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="retrieve", description="English answer spans (XOR-Retrieve)."),
        tfds.core.BuilderConfig(name="full", description="Answers in the question's language (XOR-Full)."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "From https://nlp.cs.washington.edu/xorqa/: for `retrieve` xor_train_retrieve_eng_span.jsonl and "
        "xor_dev_retrieve_eng_span_v1_1.jsonl, for `full` xor_train_full.jsonl and xor_dev_full_v1_1.jsonl. "
        "A split whose file is absent is left out."
    )
    FILES = {  # noqa: RUF012
        "retrieve": {
            "train": "xor_train_retrieve_eng_span.jsonl",
            "validation": "xor_dev_retrieve_eng_span_v1_1.jsonl",
        },
        "full": {"train": "xor_train_full.jsonl", "validation": "xor_dev_full_v1_1.jsonl"},
    }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        paths = _present(Path(dl_manager.manual_dir), self.FILES[self.builder_config.name])
        return {split: self._generate_examples(readers.read_xor(path)) for split, path in paths.items()}


class Mkqa(_QuestionBuilder):
    """MKQA: multilingual knowledge questions and answers (Longpre et al. 2021), 26 languages."""

    HOMEPAGE = "https://github.com/apple/ml-mkqa"
    DESCRIPTION = "Natural Questions translated into 26 languages; those without a short answer are left out."
    MANUAL_DOWNLOAD_INSTRUCTIONS = "From https://github.com/apple/ml-mkqa: mkqa.jsonl.gz (or mkqa.jsonl)."

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        folder = Path(dl_manager.manual_dir)
        name = "mkqa.jsonl" if (folder / "mkqa.jsonl").exists() else "mkqa.jsonl.gz"
        return {"test": self._generate_examples(readers.read_mkqa(_present(folder, {"test": name})["test"]))}


_BUILDERS = {"xor_tydi_qa": XorTydiQa, "mkqa": Mkqa}
_NAMES = ("xor_tydi_qa/retrieve", "xor_tydi_qa/full", "mkqa")


def prepare(name: str, manual_dir: str | os.PathLike, data_dir: str | os.PathLike) -> None:
    """Writes a benchmark as TFDS records, if `data_dir` doesn't hold it already.

    Args:
      name: `xor_tydi_qa/retrieve`, `xor_tydi_qa/full` or `mkqa`.
      manual_dir: folder of the published files.
      data_dir: where the records go.

    Raises:
      InputError: an unknown benchmark, no published file, or a bad row in one.
    """
    settings = tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir))
    _builder(name, data_dir).download_and_prepare(download_config=settings)


def splits_of(name: str, data_dir: str | os.PathLike) -> list[str]:
    """Returns the splits that are prepared, train first.

    Raises:
      InputError: an unknown benchmark, or one that is not prepared.
    """
    return sorted(_prepared(name, data_dir).info.splits, key=("train", "validation", "test").index)


@rereadable
def read_benchmark(name: str, data_dir: str | os.PathLike, split: str) -> Iterator[Question]:
    """The questions of a split of a prepared benchmark.

    Raises:
      InputError: an unknown benchmark, or one that is not prepared.
    """
    for example in tfds.as_numpy(_prepared(name, data_dir).as_dataset(split=split, shuffle_files=False)):
        answers = tuple(answer.decode("utf-8") for answer in example["answers"])
        question_id, text, language = (example[key].decode("utf-8") for key in ("id", "question", "language"))
        yield Question(question_id, text, answers, language)


def _builder(name: str, data_dir: str | os.PathLike) -> tfds.core.DatasetBuilder:
    if name not in _NAMES:
        raise InputError(f"unknown benchmark {name!r}", key="builder", remedy=", ".join(_NAMES) + " are known")
    builder, _, config = name.partition("/")
    return _BUILDERS[builder](data_dir=os.fspath(data_dir), **({"config": config} if config else {}))


def _prepared(name: str, data_dir: str | os.PathLike) -> tfds.core.DatasetBuilder:
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        raise InputError(f"{name} is not prepared here", file=data_dir, remedy="call tasks.benchmarks.prepare first")
    return builder


def _present(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    found = {split: folder / name for split, name in files.items() if (folder / name).is_file()}
    if not found:
        raise InputError(f"none of {', '.join(files.values())}", file=folder, remedy="download one into the folder")
    return found
