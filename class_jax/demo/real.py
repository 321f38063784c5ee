# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The main job on real data: parallel questions and XQuAD, a Wikipedia dump and XQuAD's paragraphs.

Makes public-format files for `gin/runs/real_parallel.gin` from a folder of public data:
`xor_parallel/{lang}-en.{lang,en}` (XOR-TyDi QA's human translations), `xquad/xquad.{en,ar,de,ru}.json` (XQuAD) and
`wiki/*-pages-articles.xml.bz2` (a dump).
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from class_jax.corpus.dump import passages_from_dump
from class_jax.corpus.passages import Passage, read_passages, write_passages
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.errors import InputError
from class_jax.files import replacing, write_json
from class_jax.questions import Question, read_parallel_lines, read_xquad, read_xquad_paragraphs

PARALLEL_LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")
XQUAD_LANGUAGES = ("ar", "de", "ru")


def is_training(question_id: str) -> bool:
    """The fixed rule: 70% of XQuAD's questions, by the hash of their public id, the same in every language."""
    return hashlib.sha256(question_id.encode()).digest()[0] < 0.7 * 256


def prepare(data: Path, out: Path, vocabulary_size: int = 16000) -> dict[str, int]:
    """Writes passages, held-out questions with their gold paragraph, and a vocabulary trained on what training sees.

    Args:
      data: the folder of public data.
      out: where the files go.
      vocabulary_size: of the SentencePiece model trained on passages and training questions.

    Returns:
      Counts of passages and of questions.

    Raises:
      InputError: if a file is missing or malformed.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts = {"passages": _write_passages(data, out)}
    pairs = list(training_pairs(data))
    counts["training pairs"] = len(pairs)
    counts |= _write_heldout(data, out)
    texts = (text for pair in pairs for text in (pair.text, pair.english))
    passages = (f"{p.title} {p.text}" for p in read_passages(out / "passages.tsv"))
    train_vocabulary(_chained(texts, passages), out / "vocabulary.model", vocabulary_size)
    write_json(out / "counts.json", counts)
    return counts


def _write_passages(data: Path, out: Path) -> int:
    dumps = sorted((data / "wiki").glob("*-pages-articles.xml*"))
    if not dumps:
        raise InputError("no pages-articles dump there", file=data / "wiki")
    passages_from_dump(dumps[0], out / "wiki.tsv")
    paragraphs = read_xquad_paragraphs(data / "xquad" / "xquad.en.json")
    return write_passages(out / "passages.tsv", _chained(iter(paragraphs), read_passages(out / "wiki.tsv")))


def training_pairs(data: str | Path) -> Iterator[Question]:
    """Yields the training questions with their English: seven languages' parallel questions, and 70% of XQuAD's."""
    data = Path(data)
    for language in PARALLEL_LANGUAGES:
        stem = data / "xor_parallel" / f"{language}-en"
        yield from read_parallel_lines(f"{stem}.en", f"{stem}.{language}", language)
    for language in XQUAD_LANGUAGES:
        questions, _ = _xquad(data, language)
        yield from (q for q in questions if is_training(q.id.partition("-")[2]))


def _write_heldout(data: Path, out: Path) -> dict[str, int]:
    counts = {}
    with replacing(out / "heldout.jsonl") as f, replacing(out / "heldout_gold.jsonl") as g:
        for language in ("en", *XQUAD_LANGUAGES):
            for question, paragraph in zip(*_xquad(data, language), strict=True):
                if is_training(question.id.partition("-")[2]):
                    continue
                entry = {"id": question.id, "question": question.text, "answers": list(question.answers)}
                f.write(json.dumps(entry | {"lang": language, "split": "dev"}, ensure_ascii=False) + "\n")
                g.write(json.dumps({"id": question.id, "passages": [paragraph]}) + "\n")
                counts[f"held-out {language}"] = counts.get(f"held-out {language}", 0) + 1
    return counts


def _xquad(data: Path, language: str) -> tuple[list[Question], list[str]]:
    folder = data / "xquad"
    return read_xquad(folder / f"xquad.{language}.json", english_path=folder / "xquad.en.json")


def _chained(*sources: Iterator) -> Iterator[str | Passage]:
    for source in sources:
        yield from source


def main() -> int:
    """Prepares the data; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocabulary_size", type=int, default=16000)
    arguments = parser.parse_args()
    try:
        counts = prepare(arguments.data, arguments.out, arguments.vocabulary_size)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, count in counts.items():
        print(f"{name}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
