# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The main job on real data: parallel questions and XQuAD, a Wikipedia dump and XQuAD's paragraphs.

Makes public-format files for `gin/runs/real_parallel.gin` from a folder of public data:
`xor_parallel/{lang}-en.{lang,en}` (XOR-TyDi QA's human translations), `xquad/xquad.{en,ar,de,ru}.json` (XQuAD) and
`wiki/*-pages-articles.xml.bz2` (a dump).
"""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

from class_jax.common.files import replacing
from class_jax.common.work import Piece, WorkFolder, as_json, refuse_other
from class_jax.corpus.inputs import passage_text, question_text
from class_jax.corpus.passages import read_passages, write_passages
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.corpus.wikipedia.dump import passages_from_dump
from class_jax.corpus.wikipedia.splits import file_identity
from class_jax.demo.jobs import bm25_scores, evaluation_of, open_evaluator, train_once
from class_jax.demo.phases import Phases, in_child
from class_jax.errors import InputError
from class_jax.questions.readers import read_xquad_paragraphs
from class_jax.questions.real_pairs import (
    PARALLEL_LANGUAGES,
    XQUAD_LANGUAGES,
    is_training,
    training_pairs,
    xquad_questions,
)
from class_jax.reports.tables import Column, Table

VOCABULARY_SIZE = 16000
_GIN_FILE = "runs/real_parallel.gin"
# The gin macros of the gin file that name prepared files.
_FILES = {
    "VOCABULARY": "vocabulary.model",
    "STORE": "store",
    "PASSAGES": "passages.tsv",
    "HELDOUT": "heldout.jsonl",
    "GOLD": "heldout_gold.jsonl",
}


def make_real_data(data: Path, out: Path, phases: Phases, vocabulary_size: int = VOCABULARY_SIZE) -> Piece:
    """Makes passages, held-out questions with their gold paragraph, and a vocabulary of what training sees, once.

    Args:
      data: the folder of public data.
      out: the job's folder; the files are made in `out/data`.
      phases: shows what is being done.
      vocabulary_size: of the SentencePiece model trained on passages and training questions.

    Returns:
      The piece of work; its result are counts of passages and of questions.

    Raises:
      InputError: if a file is missing or malformed, or the folder holds data made from other files.
    """
    dumps = sorted((data / "wiki").glob("*-pages-articles.xml*"))
    if not dumps:
        raise InputError("no pages-articles dump there", file=data / "wiki")
    files = [dumps[0], *(data / "xquad" / f"xquad.{language}.json" for language in ("en", *XQUAD_LANGUAGES))]
    files += [data / "xor_parallel" / f"{code}-en.{side}" for code in PARALLEL_LANGUAGES for side in (code, "en")]
    inputs = {"files": {path.name: file_identity(path) for path in files}, "vocabulary": vocabulary_size}
    work = WorkFolder(out)
    if (piece := work.piece("data")) is not None:
        refuse_other(piece.inputs, as_json(inputs), file=out / "data")

    def make() -> dict[str, int]:
        return _make_data(data, out / "data", dumps[0], phases, vocabulary_size)

    outputs = [f"data/{file}" for name, file in _FILES.items() if name != "STORE"]
    return work.run("data", make, inputs=inputs, outputs=outputs)


def _make_data(data: Path, out: Path, dump: Path, phases: Phases, vocabulary_size: int) -> dict[str, int]:
    out.mkdir(parents=True, exist_ok=True)
    with phases.phase("cutting the dump into passages"):
        passages_from_dump(dump, out / "wiki.tsv")
        paragraphs = read_xquad_paragraphs(data / "xquad" / "xquad.en.json")
        count = write_passages(out / "passages.tsv", chain(paragraphs, read_passages(out / "wiki.tsv")))
    with phases.phase("reading questions"):
        counts = {"passages": count, "training pairs": sum(1 for _ in training_pairs(data))}
        counts |= _write_heldout(data, out)
    with phases.phase("training a vocabulary"):
        in_child(_train_vocabulary, data, out, vocabulary_size)
    return counts


def _train_vocabulary(data: Path, out: Path, size: int) -> None:
    # Texts as the model meets them: with their prefixes, which would cost many pieces otherwise.
    texts = (
        question_text(text, language)
        for pair in training_pairs(data)
        for text, language in ((pair.text, pair.language), (pair.english, "en"))
    )
    passages = (passage_text(passage) for passage in read_passages(out / "passages.tsv"))
    train_vocabulary(chain(texts, passages), out / "vocabulary.model", size)


def _write_heldout(data: Path, out: Path) -> dict[str, int]:
    counts = {}
    with replacing(out / "heldout.jsonl") as f, replacing(out / "heldout_gold.jsonl") as g:
        for language in ("en", *XQUAD_LANGUAGES):
            for question, paragraph in zip(*xquad_questions(data, language), strict=True):
                if is_training(question.id.partition("-")[2]):
                    continue
                entry = {"id": question.id, "question": question.text, "answers": list(question.answers)}
                f.write(json.dumps(entry | {"lang": language, "split": "dev"}, ensure_ascii=False) + "\n")
                g.write(json.dumps({"id": question.id, "passages": [paragraph]}) + "\n")
                counts[f"held-out {language}"] = counts.get(f"held-out {language}", 0) + 1
    return counts


def run_real(data: Path, out: Path, extra: Sequence[str], console: Console) -> Table:
    """Makes the data, trains stage 1, and compares it with BM25 and the untrained model.

    Args:
      data: the folder of public data.
      out: where everything is written; interrupted, the same call resumes.
      extra: further gin bindings.
      console: where it prints.

    Raises:
      InputError: for missing or malformed data, a folder that holds work made with other settings, or after a stop
        signal; see also `class_jax.training.loop.train`.
    """
    phases, work = Phases(out, console), WorkFolder(out)
    made = make_real_data(data, out, phases)
    phases.say(", ".join(f"{name}: {count}" for name, count in made.result.items()))
    bindings = [f"MODEL_DIR = {str(out)!r}", f"DATA = {str(data)!r}"]
    bindings += [f"{name} = {str(out / 'data' / file)!r}" for name, file in _FILES.items()]
    bindings += extra
    with phases.phase("stage 1: distillation from a BM25 English teacher"):
        stage = train_once(work, "stage1", _GIN_FILE, bindings, made_from={"data": made.fingerprint}, run=".")
    with phases.phase("evaluating BM25"):
        _, evaluator = open_evaluator(_GIN_FILE, bindings)
        scores = {"BM25": bm25_scores(evaluator), "untrained": evaluation_of(out), "after stage 1": stage.result}
    groups = ("en", *XQUAD_LANGUAGES)
    columns = [Column("model"), *(Column(group, f"R@{k}", percent=True) for k in (1, 5, 20) for group in groups)]
    names = [f"eval/R@{k}/{group}" for k in (1, 5, 20) for group in groups]
    rows = [[title, *(found.get(name) for name in names)] for title, found in scores.items()]
    notes = (f"The right paragraph among {evaluator.store.num_passages} passages.",)
    table = Table("Held-out XQuAD questions", columns, rows, notes)
    table.write(out / "results")
    table.print(console)
    phases.say(f"done; table and weights are in {out}")
    return table
