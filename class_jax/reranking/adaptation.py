# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Few-shot adaptation compared on held-out lists: each objective and number of examples, beside zero-shot."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from class_jax.common.files import write_json
from class_jax.corpus.inputs import language_code
from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores
from class_jax.evaluation.significance import paired_bootstrap, paired_t_test
from class_jax.reports.tables import Column, Table
from class_jax.reranking import rerank as ranks
from class_jax.reranking.adapt import AdaptConfig, adapt, choose_pairs
from class_jax.reranking.ranked import RankedList, read_ranked
from class_jax.reranking.rerank import METRICS
from class_jax.reranking.rerank_files import find_right
from class_jax.reranking.score import Scorer

RETRIEVER, ZERO_SHOT = "retriever", "zero-shot"
_SETTINGS = ("steps", "batch", "negatives", "learning_rate", "temperature", "seed")


class JudgedLists(NamedTuple):
    """Retrieved lists with the ids of each list's right passages."""

    lists: list[RankedList]
    right: list[frozenset[str] | None]


class Adapted(NamedTuple):
    """What the comparison came to.

    Attributes:
      table: macro averages of each way.
      best: name of the adapted scorer with the highest macro MRR.
      reached: its macro MRR.
    """

    table: Table
    best: str
    reached: float


def read_judged(
    examples: Path, heldout: Path, gold: Path | None, passage_language: str | None
) -> tuple[JudgedLists, JudgedLists]:
    """Reads retrieved lists (`ctxs`) with their right passages.

    Args:
      examples: lists to learn from.
      heldout: lists of other questions.
      gold: right passages: JSON lines (id, passages) or TREC qrels; by the questions' answers if None.
      passage_language: of passages that don't say theirs.

    Raises:
      InputError: for a malformed file, if no right passage is known, or a question is in both files.
    """
    code = None if passage_language is None else language_code(passage_language)
    judged = []
    for path in (examples, heldout):
        lists = read_ranked(path, "ctxs", passage_language=code)
        judged.append(JudgedLists(lists, find_right(lists, gold, os.fspath(path))))
    both = set.intersection(*({one.question.id for one in some.lists} for some in judged))
    if both:
        raise InputError("is among the examples too", file=heldout, key=f"question {min(both)!r}")
    return judged[0], judged[1]


def compare_adaptations(
    scorer: Scorer,
    examples: JudgedLists,
    heldout: JudgedLists,
    configs: Sequence[AdaptConfig],
    counts: Sequence[int],
    out: Path,
    *,
    top: int,
    weight: float,
    save: Path | None = None,
) -> Adapted:
    """Adapts a scorer by each configuration to each number of examples, and measures all on held-out lists.

    Args:
      scorer: the model before it is adapted.
      examples: lists to learn from.
      heldout: lists of other questions.
      configs: one for each objective.
      counts: numbers of examples.
      out: folder of the tables, losses and logs of scores.
      top: passages re-ranked of a list.
      weight: of the retriever's score.
      save: folder for the adapted model with the best macro MRR.

    Raises:
      InputError: if there are too few examples.
    """
    chosen = {n: choose_pairs(examples.lists, examples.right, n, configs[0].negatives) for n in counts}
    measured = {RETRIEVER: ranks.score_ranks(heldout.lists, heldout.right)}
    measured[ZERO_SHOT] = _rerank(scorer, heldout, out, ZERO_SHOT, top, weight)
    losses, best = {}, None
    for config in configs:
        for count, pairs in chosen.items():
            name = f"{config.objective} {count}"
            with tqdm(total=config.steps, unit="step", desc=name, disable=None) as bar:
                adapted, losses[name] = adapt(scorer, pairs, config, lambda *_, bar=bar: bar.update())
            measured[name] = _rerank(adapted, heldout, out, name.replace(" ", "_"), top, weight)
            reached = measured[name].summary()["macro"]["MRR"]
            if best is None or reached > best[0]:
                best = reached, name, adapted if save is not None else None
    settings = {name: getattr(configs[0], name) for name in _SETTINGS}
    write_json(out / "losses.json", {"settings": settings, "losses": losses})
    table = adaptation_table(measured)
    table.write(out / "adaptation")
    reached, name, adapted = best
    if adapted is not None:
        adapted.save(save)
    return Adapted(table, name, reached)


def _rerank(scorer: Scorer, judged: JudgedLists, out: Path, name: str, top: int, weight: float) -> Scores:
    # Two runs' adapted models differ: each has a log of its own.
    log = out / "scores" / f"{name}.{scorer.fingerprint[:12]}-{top}.jsonl"
    scores = ranks.score_lists(scorer, judged.lists, log, top=top)
    settings = ranks.Settings(weight)
    changed = [ranks.rerank_list(one, scores.get(one.question.id), settings) for one in judged.lists]
    return ranks.score_ranks(changed, judged.right)


def adaptation_table(measured: dict[str, Scores]) -> Table:
    """Macro averages of each way, and how each differs from zero-shot over all questions (paired tests)."""
    columns = [Column("scorer"), *(Column(metric, "macro", percent=True) for metric in METRICS)]
    columns += [Column("MRR", "all", percent=True)]
    shown = {"percent": True, "best": None}
    columns += [Column(name, "all MRR minus zero-shot", **shown) for name in ("change", "low", "high")]
    columns += [Column(name, "p", digits=3, best=None) for name in ("bootstrap", "t-test")]
    base, rows = measured[ZERO_SHOT].values["MRR"], []
    for name, scores in measured.items():
        macro, mine = scores.summary()["macro"], scores.values["MRR"]
        row = [name, *(macro[metric] for metric in METRICS), mine.mean()]
        if name == ZERO_SHOT:
            rows.append([*row, None, None, None, None, None])
            continue
        drawn, t = paired_bootstrap(base, mine), paired_t_test(base, mine)
        rows.append([*row, *drawn[:3], drawn.p, t.p])
    notes = (
        f"{len(base)} held-out questions; macro: mean over languages; low and high: 95% interval, by bootstrap",
        "p: two-sided, not corrected for the number of rows",
    )
    return Table("Few-shot adaptation", columns, rows, notes)
