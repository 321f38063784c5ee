# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Passage lists of stage 1, made once before training by the English teacher (paper 3.1 and appendix A.1.3).

The file is the public form, `{"qid": ..., "pids": [...]}` a line, which `config.TrainConfig.lists` takes.
"""

import dataclasses
import functools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from class_jax.common.files import digest_file, numbered_lines, replacing
from class_jax.corpus.passages import Passage, read_passages
from class_jax.distributed.sharding import MeshConfig, make_mesh
from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig, counter
from class_jax.pipelines.stages import RECORD, run_stage, stage_fingerprint
from class_jax.questions.readers import read_parallel
from class_jax.retrieval.bm25 import BM25
from class_jax.synthesis.stage1.parallel import FILE, STAGE
from class_jax.training.data import DataConfig, open_data
from class_jax.training.teacher import (
    Bm25TeacherConfig,
    ModelTeacherConfig,
    lists_by_model_teacher,
    open_model_teacher,
)

if TYPE_CHECKING:
    import apache_beam as beam

LISTS_STAGE = "stage1_lists"
LISTS_FILE = "lists.jsonl"
_SEARCH_BATCH = 256


def write_lists(
    work: Path,
    teacher: Bm25TeacherConfig | ModelTeacherConfig | None = None,
    progress: bool | None = None,
    *,
    passages: str | os.PathLike | None = None,
    passage_languages: str | os.PathLike | None = None,
    **stage: Any,
) -> dict[str, int]:
    """Writes `work/stage1_lists/lists.jsonl`: each query's passages by the teacher, which reads only English.

    Args:
      work: the work folder, with `stage1/parallel.tsv`.
      teacher: BM25 (None takes its defaults) or a model.
      progress: show a bar; None shows it on a terminal only.
      passages: the public TSV; `work/passages/passages.tsv` unless given.
      passage_languages: TSV `id, language`: only English passages are searched; `passage_languages.tsv` beside the
        passages where it is there, else all passages are.
      **stage: further arguments of `run_stage`, such as `force`.

    Returns:
      Counts: `lists`, `english_questions`, `passages`.

    Raises:
      InputError: if there are no queries or too few passages, or as `run_stage` does.
    """
    teacher = teacher or Bm25TeacherConfig()
    work = Path(work)
    passages = Path(passages or work / "passages" / "passages.tsv")
    beside = passages.with_name("passage_languages.tsv")
    languages = Path(passage_languages) if passage_languages else (beside if beside.exists() else None)
    inputs = {
        "teacher": {type(teacher).__name__: dataclasses.asdict(teacher)},
        "queries": stage_fingerprint(work / STAGE),
        "passages": _fingerprint(passages),
        "passage_languages": None if languages is None else _fingerprint(languages),
    }
    build = functools.partial(
        _build, queries=work / STAGE / FILE, passages=passages, languages=languages, teacher=teacher, progress=progress
    )
    # One index serves all queries, and a model has one set of devices: this is no work for several processes.
    return run_stage(work, LISTS_STAGE, build, inputs=inputs, runner=RunnerConfig(workers=1), progress=False, **stage)


def _fingerprint(file: Path) -> str:
    if (file.parent / RECORD).exists():
        return stage_fingerprint(file.parent)
    if not file.is_file():
        raise InputError("no such file", file=file, remedy="make the passages first (class-jax make-data)")
    return digest_file(file)


def _build(pipeline: "beam.Pipeline", out: Path, **settings: Any) -> None:
    import apache_beam as beam

    _ = pipeline | "once" >> beam.Create([LISTS_FILE]) | "write" >> beam.Map(_write, Path(out), settings)


def _write(name: str, out: Path, settings: dict[str, Any]) -> None:
    settings = dict(settings)
    teacher = settings.pop("teacher")
    by_teacher = write_bm25_lists if isinstance(teacher, Bm25TeacherConfig) else write_model_lists
    for key, count in by_teacher(out / name, teacher=teacher, **settings).items():
        counter(key).inc(count)


def write_bm25_lists(
    out: Path,
    *,
    queries: Path,
    passages: Path,
    languages: Path | None = None,
    teacher: Bm25TeacherConfig | None = None,
    progress: bool | None = None,
) -> dict[str, int]:
    """Writes passage lists by BM25 over the English passages; one English query is searched once.

    Beside the index, memory holds the rows found for each English query, 400 bytes at lists of 100.

    Args:
      out: the file.
      queries: as `read_parallel` reads them.
      passages: the public TSV.
      languages: TSV `id, language` of the passages; None takes all for English.
      teacher: settings.
      progress: show a bar; None shows it on a terminal only.

    Raises:
      InputError: if there are no queries, or fewer passages than a list is long.
    """
    teacher = teacher or Bm25TeacherConfig()
    ids: list[str] = []
    texts = _texts(english_passages(passages, languages), ids)
    index = BM25.build(texts, stem=teacher.stem, k1=teacher.k1, b=teacher.b, progress=progress)
    found: dict[str, np.ndarray] = {}
    hidden = None if progress is None else not progress
    count = 0
    with replacing(out) as f, tqdm(desc="teacher's passages", unit="query", disable=hidden) as bar:
        for batch in _batches(queries):
            # The same sentence is paired with many languages; its queries are far apart, so results are kept.
            new = list(dict.fromkeys(english for _, english in batch if english not in found))
            rows, _ = index.search(new, teacher.list_length)
            found |= zip(new, rows.astype(np.int32), strict=True)
            for qid, english in batch:
                f.write(json.dumps({"qid": qid, "pids": [ids[row] for row in found[english]]}) + "\n")
            count += len(batch)
            bar.update(len(batch))
        if not count:
            raise InputError("no queries", file=queries, remedy="mine pairs first")
    return {"lists": count, "english_questions": len(found), "passages": len(ids)}


def write_model_lists(
    out: Path,
    *,
    queries: Path,
    passages: Path,
    languages: Path | None = None,
    teacher: ModelTeacherConfig,
    progress: bool | None = None,
) -> dict[str, int]:
    """Writes passage lists by a model that reads English, such as ReAtt; arguments as for `write_bm25_lists`.

    Raises:
      InputError: for unusable weights or vocabulary, or fewer passages than a list is long.
    """
    del progress  # the search shows its own
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        config = DataConfig(
            vocabulary=teacher.vocabulary,
            store=teacher.store or f"{scratch}/store",
            questions=read_parallel(queries),
            passages=str(passages),
            passage_languages=None if languages is None else str(languages),
            search_languages=None if languages is None else ("en",),
        )
        data = open_data(config, teacher.model)
        opened = open_model_teacher(dataclasses.replace(teacher, store=None), config, data, make_mesh(MeshConfig()))
        lists = lists_by_model_teacher(opened, data, Path(scratch) / "lists")
        table = data.table
        lists.to_public(out, [table.id(row) for row in range(len(table))], data.store)
        english = len({table.english(row) for row in range(len(table))})
        return {"lists": len(table), "english_questions": english, "passages": data.store.num_passages}


def english_passages(passages: Path, languages: Path | None) -> Iterator[Passage]:
    """Streams the English passages of a TSV.

    Args:
      passages: the public TSV.
      languages: TSV `id, language` (more columns are ignored), in the order of the passages; None takes all.

    Raises:
      InputError: if the two files don't name the same passages.
    """
    if languages is None:
        yield from read_passages(passages)
        return
    rows = numbered_lines(languages)
    for passage in read_passages(passages):
        line, text = next(rows, (None, ""))
        if line == 1 and text.startswith("id\t"):
            line, text = next(rows, (None, ""))
        id_, _, language = text.partition("\t")
        if id_ != passage.id:
            problem = f"passage {passage.id!r} of {passages} is missing here, or out of order"
            raise InputError(problem, file=languages, line=line, key=id_, remedy="make both again")
        if language.partition("\t")[0] == "en":
            yield passage


def _texts(passages: Iterator[Passage], ids: list[str]) -> Iterator[str]:
    """The passages' texts for the index; their ids go into `ids`."""
    for passage in passages:
        ids.append(passage.id)
        yield f"{passage.title} {passage.text}"


def _batches(queries: Path) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for question in read_parallel(queries):
        batch.append((question.id, question.english or ""))
        if len(batch) == _SEARCH_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
