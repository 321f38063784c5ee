# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The main job on real data: parallel questions and XQuAD, a Wikipedia dump and XQuAD's paragraphs.

Makes public-format files for `gin/runs/real_parallel.gin` from a folder of public data:
`xor_parallel/{lang}-en.{lang,en}` (XOR-TyDi QA's human translations), `xquad/xquad.{en,ar,de,ru}.json` (XQuAD) and
`wiki/*-pages-articles.xml.bz2` (a dump).
"""

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from class_jax.common.files import read_json, replacing, write_json
from class_jax.configuration.gin_files import configured
from class_jax.corpus.inputs import passage_text, question_text
from class_jax.corpus.passages import Passage, read_passages, write_passages
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.corpus.wikipedia.dump import passages_from_dump
from class_jax.demo.run import bm25_scores, first_scores
from class_jax.errors import InputError
from class_jax.questions.readers import Question, read_parallel_lines, read_xquad, read_xquad_paragraphs
from class_jax.reports.tables import Column, Table
from class_jax.training.config import TrainConfig
from class_jax.training.data import open_data
from class_jax.training.evaluator import Evaluator
from class_jax.training.main import train_from_gin

PARALLEL_LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")
XQUAD_LANGUAGES = ("ar", "de", "ru")
# The gin macros of gin/runs/real_parallel.gin that name prepared files.
_FILES = {
    "VOCABULARY": "vocabulary.model",
    "STORE": "store",
    "PASSAGES": "passages.tsv",
    "HELDOUT": "heldout.jsonl",
    "GOLD": "heldout_gold.jsonl",
}


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
    # Texts as the model meets them: with their prefixes, which would cost many pieces otherwise.
    texts = (
        question_text(text, language)
        for pair in pairs
        for text, language in ((pair.text, pair.language), (pair.english, "en"))
    )
    passages = (passage_text(passage) for passage in read_passages(out / "passages.tsv"))
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


def run(data: Path, out: Path, extra: list[str], console: Console) -> Table:
    """Prepares the data, trains stage 1, and compares it with BM25 and the untrained model.

    Args:
      data: the folder of public data.
      out: where everything is written; interrupted, the same call goes on where it was.
      extra: further gin bindings.
      console: where it prints.

    Raises:
      InputError: for missing or malformed data; see also `class_jax.training.loop.train`.
    """
    prepared = out / "data"
    if not (prepared / "counts.json").exists():
        prepare(data, prepared)
    console.print(", ".join(f"{name}: {count}" for name, count in read_json(prepared / "counts.json").items()))
    bindings = [f"MODEL_DIR = {str(out)!r}", f"DATA = {str(data)!r}"]
    bindings += [f"{name} = {str(prepared / file)!r}" for name, file in _FILES.items()]
    file = "runs/real_parallel.gin"
    begun = time.monotonic()
    scores = {"after stage 1": train_from_gin([file], [*bindings, *extra])}
    minutes = (time.monotonic() - begun) / 60
    config = configured(TrainConfig, [file], [*bindings, *extra])
    opened = open_data(config.data, config.model)
    evaluator = Evaluator(config.evaluation, config.model, opened.vocabulary, opened.store, opened.languages)
    scores = {"BM25": bm25_scores(evaluator), "untrained": first_scores(out), **scores}
    groups = ("en", *XQUAD_LANGUAGES)
    columns = [Column("model"), *(Column(group, f"R@{k}", percent=True) for k in (1, 5, 20) for group in groups)]
    names = [f"eval/R@{k}/{group}" for k in (1, 5, 20) for group in groups]
    rows = [[title, *(found.get(name) for name in names)] for title, found in scores.items()]
    notes = (f"The right paragraph among {opened.store.num_passages} passages.", f"Trained in {minutes:.0f} minutes.")
    table = Table("Held-out XQuAD questions", columns, rows, notes)
    table.write(out / "results")
    table.print(console)
    return table


def main() -> int:
    """Runs the job; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data")
    parser.add_argument("--out", type=Path, default=Path("runs/real_parallel"), help="folder to write")
    parser.add_argument("--gin", action="append", default=[], help="a further gin binding, such as STEPS=100")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(name)s: %(message)s")
    try:
        run(arguments.data, arguments.out, arguments.gin, Console())
    except InputError as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
