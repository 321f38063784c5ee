# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper's tables in miniature: which runs each has, and which published rows they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

STEPS = {"stage1": 300, "stage2": 600}  # three fifths of the demo: more seeds say more than more steps
_DENSE = ("model_config.ModelConfig.retriever = 'dense'",)


@dataclass(frozen=True)
class Run:
    """A training run of the miniature.

    Attributes:
      stage: `stage1` or `stage2`, whose gin file it takes.
      start: the run that its weights come from, None for random ones.
      settings: further gin bindings.
      cloze: stage 2 on cloze questions instead of natural ones.
    """

    stage: str
    start: str | None = None
    settings: Sequence[str] = ()
    cloze: bool = False


RUNS = {
    "stage1": Run("stage1"),
    "stage1_dense": Run("stage1", settings=_DENSE),
    "stage1_no_english_queries": Run("stage1", settings=("objectives.ObjectiveConfig.queries = 'parallel'",)),
    "stage1_no_target_queries": Run("stage1", settings=("objectives.ObjectiveConfig.queries = 'english'",)),
    "stage1_no_alignment": Run("stage1", settings=("objectives.ObjectiveConfig.align = False",)),
    "stage2": Run("stage2", "stage1"),
    "stage2_dense": Run("stage2", "stage1_dense", _DENSE),
    "stage2_cloze": Run("stage2", "stage1", cloze=True),
    # Nothing has been learnt that a slow retriever or a head made of embeddings could keep.
    "stage2_alone": Run(
        "stage2",
        None,
        ("config.TrainConfig.head_from_embedding = None", "optimizer.OptimizerConfig.retriever_rate = 1.0"),
    ),
}
"""Runs by name; a run comes after the one that it starts from."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      name: as the table shows it.
      run: the run whose scores it shows.
      paper: the published row, and the one that it is compared with there; empty where no number is printed.
      lower: the paper has it below the first row, where it prints no number.
    """

    name: str
    run: str
    paper: tuple[str, ...] = ()
    lower: bool = False


@dataclass(frozen=True)
class Miniature:
    """A table of the paper: its title, its rows (the others are compared with the first), its published table."""

    title: str
    rows: Sequence[Row]
    table: int | None = None
    notes: Sequence[str] = field(default=())


_FIGURE = "the paper draws these without printing numbers; it finds each ablation below the whole"
TABLES = {
    "1": Miniature(
        "Table 1: dense against multi-vector",
        (
            Row("CLASS-US", "stage2", ("CLASS-US",)),
            Row("CLASS-US w/ Dense", "stage2_dense", ("CLASS-US w/ Dense", "CLASS-US")),
        ),
        1,
    ),
    "4": Miniature(
        "Table 4: effects of two-stage pre-training",
        (
            Row("CLASS-US", "stage2", ("CLASS-US",)),
            Row("- MLQA-PT: stage 1 only", "stage1", ("CLASS-US - MLQA-PT", "CLASS-US")),
            Row("- Query TF: cloze questions", "stage2_cloze", ("CLASS-US - Query TF", "CLASS-US")),
            Row("- Pre-train: without stage 1", "stage2_alone", ("CLASS-ZS - Pre-train", "CLASS-ZS")),
        ),
        4,
        (
            "- Pre-train: the paper leaves out both stages before fine-tuning on Natural Questions (CLASS-ZS); here "
            "stage 2's questions take their place",
            "the demo's stage 1 trains only the retriever: it answers nothing",
        ),
    ),
    "figure5": Miniature(
        "Figure 5: ablations of stage 1",
        (
            Row("stage 1", "stage1"),
            Row("-q^En", "stage1_no_english_queries", lower=True),
            Row("-q^L", "stage1_no_target_queries", lower=True),
            Row("-L_align", "stage1_no_alignment", lower=True),
        ),
        None,
        (_FIGURE, "the demo's stage 1 trains only the retriever: it answers nothing"),
    ),
}


def needed_runs(table: Miniature) -> list[str]:
    """The runs of a table and those that they start from, in the order in which they can be trained."""
    wanted = set()
    for row in table.rows:
        name: str | None = row.run
        while name is not None:
            wanted.add(name)
            name = RUNS[name].start
    return [name for name in RUNS if name in wanted]


def list_tables() -> list[tuple[str, str, int]]:
    """What can be reproduced: the name, title and number of runs a seed of each table."""
    return [(name, table.title, len(needed_runs(table))) for name, table in TABLES.items()]
