# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The embedded main job: CLASS pre-trained, refreshed, evaluated and asked questions, on one small encyclopaedia.

Everything that it makes is in one folder: data, vocabulary, token store, both stages' runs, the table of results and
the learning curves. Interrupted, the same command resumes.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from class_jax.checkpoints.weights import load_params
from class_jax.common.files import digest_file
from class_jax.common.work import Piece, WorkFolder, as_json, refuse_other
from class_jax.corpus.inputs import PREFIXES, passage_text
from class_jax.corpus.passages import read_passages
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.demo.answers import answer_questions, show_answers, spread_questions
from class_jax.demo.encyclopaedia import LANGUAGES, QUESTION_LANGUAGES, load_tables, thinned
from class_jax.demo.encyclopaedia_dump import PHRASEBOOK, build_dumps
from class_jax.demo.held_out import write_held_out
from class_jax.demo.jobs import bm25_scores, evaluation_of, gin_settings, open_evaluator, train_once
from class_jax.demo.phases import Phases
from class_jax.questions.readers import Question
from class_jax.reports.curves import plot_curves
from class_jax.reports.tables import Column, Table
from class_jax.synthesis import make_data

ONE_COUNTRY_IN = 2  # half of the encyclopaedia: what a model that starts from nothing can learn in ten minutes
VOCABULARY_SIZE = 3500
ASKED_LANGUAGES, ASKED = ("fi", "ja", "te"), 3
STAGES = {"stage1": "distillation from a BM25 English teacher", "stage2": "end-to-end training"}
_DATA_FILE = "data/encyclopaedia.gin"
_MADE = ("vocabulary.model", "heldout.jsonl", "heldout_gold.jsonl", "passages", "stage1", "stage2")


def paths(folder: Path) -> dict[str, str]:
    """The gin macros of `gin/runs/demo_*.gin` that name files, for a run under `folder`."""
    data = folder / "data"
    names = {
        "VOCABULARY": data / "vocabulary.model",
        "STORE": data / "store",
        "PASSAGES": data / "passages" / "passages.tsv",
        "PASSAGE_LANGUAGES": data / "passages" / "passage_languages.tsv",
        "HELDOUT": data / "heldout.jsonl",
        "GOLD": data / "heldout_gold.jsonl",
    }
    return {name: str(path) for name, path in names.items()}


def bindings(folder: Path, stage: str) -> list[str]:
    """Gin bindings that put a stage's files under `folder`."""
    own = dict(paths(folder), MODEL_DIR=str(folder / stage))
    made = folder / "data" / stage
    if stage == "stage1":
        own["QUESTIONS"] = str(made / "parallel.tsv")
    else:
        own["QUESTIONS"] = str(made / "anchor_questions.tsv")
        own["OWN_PASSAGES"] = str(made / "anchor_questions.passages.tsv")
        own["INIT_FROM"] = str(folder / "stage1")
    return [f"{name} = {value!r}" for name, value in own.items()]


def gin_file(stage: str) -> str:
    """The short name of the stage's configuration."""
    return f"runs/demo_{stage}.gin"


def make_demo_data(folder: Path, phases: Phases) -> Piece:
    """Makes all data that the runs under `folder` need, once; the piece's result are counts.

    The encyclopaedia is written as Wikipedia dumps, which go through `class-jax make-data`'s steps: pages, passages,
    mined queries of stage 1 and anchor questions of stage 2. Held-out questions and a vocabulary come beside them.

    Raises:
      InputError: if the folder holds data made from something else, or the disk refuses a write.
    """
    work, dumps = WorkFolder(folder), folder / "dumps"
    files = {"DUMPS": dumps, "PHRASEBOOK": dumps / PHRASEBOOK}
    given = [f"{name} = {str(path)!r}" for name, path in files.items()]
    sources = [path for path in (Path(__file__).parent / "data").rglob("*") if path.suffix in (".tsv", ".json")]
    inputs = {
        "settings": gin_settings([_DATA_FILE], given, folder),
        "one country in": ONE_COUNTRY_IN,
        "vocabulary": VOCABULARY_SIZE,
        "encyclopaedia": {path.name: digest_file(path) for path in sources},
    }
    if (piece := work.piece("data")) is not None:
        refuse_other(piece.inputs, as_json(inputs), file=folder / "data")
    outputs = [f"data/{name}" for name in _MADE]
    return work.run("data", lambda: _make_data(folder, given, phases), inputs=inputs, outputs=outputs)


def _make_data(folder: Path, given: Sequence[str], phases: Phases) -> dict[str, int]:
    data = folder / "data"
    tables = thinned(load_tables(), ONE_COUNTRY_IN)
    counts = {}
    with phases.phase("making data from the encyclopaedia's dumps") as how_far:
        build_dumps(folder / "dumps", one_country_in=ONE_COUNTRY_IN)
        for step, found in make_data.run_steps(make_data.read_configuration([_DATA_FILE], given), data):
            how_far(f"{step} done")
            counts |= found
        asked = write_held_out(tables, data, data)
    with phases.phase("training a vocabulary"):
        # No training question: the vocabulary would keep their wordings whole, and those of others would fall apart.
        train_vocabulary(
            (passage_text(passage) for passage in read_passages(paths(folder)["PASSAGES"])),
            data / "vocabulary.model",
            VOCABULARY_SIZE,
            character_coverage=1.0,
            byte_fallback=False,
            symbols=PREFIXES,
        )
    return {
        "entities": len(tables.types),
        "facts": len(tables.facts),
        "passages": counts["passages"]["passages"],
        "queries": sum(n for key, n in counts["stage1"].items() if key.startswith("queries/")),
        "questions": sum(n for key, n in counts["stage2"].items() if key.startswith("questions/")),
        "heldout": sum(count["heldout"] for count in asked.values()),
    }


def run_demo(folder: Path, extra: Sequence[str], console: Console) -> Table:
    """The whole job; returns the table of results.

    Args:
      folder: where everything is written.
      extra: further gin bindings for both stages.
      console: where it prints.

    Raises:
      InputError: if the folder holds work made with other settings, after a stop signal, or see
        `class_jax.training.loop.train`.
    """
    phases, work = Phases(folder, console), WorkFolder(folder)
    made = make_demo_data(folder, phases)
    counts = made.result
    phases.say(
        f"{counts['entities']} entities, {counts['facts']} facts, {counts['passages']} passages in {len(LANGUAGES)} "
        f"languages; {counts['queries']} mined queries, {counts['questions']} questions made from anchors; "
        f"{counts['heldout']} held-out questions"
    )
    scores, made_from = {}, {"data": made.fingerprint}
    for stage, what in STAGES.items():
        with phases.phase(f"{stage}: {what}"):
            piece = train_once(work, stage, gin_file(stage), [*bindings(folder, stage), *extra], made_from=made_from)
        scores[stage] = piece.result
        made_from = made_from | {"start": piece.fingerprint}
    with phases.phase("evaluating BM25"):
        config, evaluator = open_evaluator(gin_file("stage2"), [*bindings(folder, "stage2"), *extra])
        scores["bm25"] = bm25_scores(evaluator)
    scores["untrained"] = evaluation_of(folder / "stage1")
    table = results(scores, evaluator.questions)
    table.write(folder / "results")
    runs = {stage.replace("stage", "stage "): folder / stage / "metrics.jsonl" for stage in STAGES}
    plot_curves(runs, folder / "curves.png", in_sequence=True, title="CLASS on the embedded encyclopaedia")
    with phases.phase("answering held-out questions"):
        chosen = spread_questions(evaluator.questions, ASKED_LANGUAGES, ASKED)
        answers = answer_questions(evaluator, load_params(str(folder / "stage2"), config.model), chosen)
    show_answers(answers, console)
    table.print(console)
    phases.say(f"done; table, curves and weights are in {folder}")
    return table


def results(scores: dict[str, dict[str, float]], questions: list[Question]) -> Table:
    """The demo's table: R@1 and R@5 over English passages by language, macro F1 and EM over all passages."""
    languages = [code for code in QUESTION_LANGUAGES if any(q.language == code for q in questions)]
    groups = (*languages, "macro")
    columns = [Column("model"), *(Column(group, f"R@{k}", percent=True) for k in (1, 5) for group in groups)]
    names = [f"eval/R@{k}/{group}" for k in (1, 5) for group in groups]
    columns += [Column("F1", "macro", percent=True), Column("EM", "macro", percent=True)]
    names += ["eval/f1/macro", "eval/em/macro"]
    titles = {"bm25": "BM25", "untrained": "untrained", "stage1": "after stage 1", "stage2": "after stage 2"}
    rows = [[title, *(scores[key].get(name) for name in names)] for key, title in titles.items()]
    notes = (
        "R@k: a passage that states the answer among the first k English passages.",
        "F1 and EM: answers in the question's language, read from passages in that language.",
    )
    return Table(f"{len(questions)} held-out questions in {len(languages)} languages", columns, rows, notes)
