# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions generated from files of passages, measured against the questions that were asked."""

import json
from pathlib import Path
from typing import Any

from class_jax.common.files import replacing
from class_jax.corpus.inputs import language_code
from class_jax.corpus.passage_languages import languages_by_id
from class_jax.corpus.passages import read_passages
from class_jax.errors import InputError
from class_jax.evaluation.runs import read_relevant
from class_jax.questions.readers import read_xor
from class_jax.reports.tables import Table
from class_jax.reranking.quality import measure_quality, passages_by_side
from class_jax.reranking.score import Scorer


def read_sides(questions: Path, passages: Path, passage_languages: Path, gold: Path, other: str) -> dict[str, Any]:
    """Questions with a right passage in their own language, and with one in another; see `passages_by_side`.

    Args:
      questions: XOR-TyDi QA JSON lines.
      passages: passage TSV.
      passage_languages: TSV: passage id, language.
      gold: right passages: JSON lines (id, passages) or TREC qrels.
      other: language of the passages that are not in the question's.

    Raises:
      InputError: for a malformed file, or one without questions.
    """
    asked, right = list(read_xor(questions)), read_relevant(gold)
    if not asked:
        raise InputError("no questions", file=questions)
    named = {id for q in asked for id in right.get(q.id, ())}
    texts = {p.id: p for p in read_passages(passages) if p.id in named}
    codes = languages_by_id(passage_languages)
    return passages_by_side(asked, right, texts, codes, language_code(other))


def measure_questions(scorer: Scorer, sides: dict[str, Any], out: Path) -> Table:
    """Perplexity and BLEU by language; writes `out.md`, `.json`, `.csv` and what was generated."""
    table, generated = measure_quality(scorer, sides)
    table.write(out)
    with replacing(out.with_name(f"{out.name}.generated.jsonl")) as f:
        for side, rows in generated.items():
            for question, passage, text in rows:
                record = {"id": question, "passage": passage, "side": side, "generated": text}
                f.write(json.dumps(record, ensure_ascii=False) + "\n")
    return table
