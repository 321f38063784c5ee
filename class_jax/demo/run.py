# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The embedded main job: CLASS pre-trained, refreshed, evaluated and asked questions, on one small encyclopaedia.

Everything that it makes lies under one folder: data, vocabulary, token store, both stages' runs, the table of results
and the learning curves. Interrupted, the same command goes on where it was.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from class_jax.common.files import read_json, write_json
from class_jax.configuration.gin_files import configured
from class_jax.corpus.inputs import PREFIXES, passage_text
from class_jax.corpus.passages import read_passages
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.demo.encyclopaedia import LANGUAGES, QUESTION_LANGUAGES, load_tables, thinned
from class_jax.demo.encyclopaedia_dump import PHRASEBOOK, build_dumps
from class_jax.demo.held_out import write_held_out
from class_jax.errors import InputError
from class_jax.models import inference
from class_jax.questions.readers import Question
from class_jax.reports.curves import plot_curves, read_metrics
from class_jax.reports.tables import Column, Table
from class_jax.retrieval.bm25 import BM25
from class_jax.synthesis import make_data
from class_jax.training import weights
from class_jax.training.config import TrainConfig
from class_jax.training.data import open_data
from class_jax.training.evaluator import Evaluator
from class_jax.training.main import train_from_gin

ONE_COUNTRY_IN = 2  # half of the encyclopaedia: what a model that starts from nothing can learn in ten minutes
VOCABULARY_SIZE = 3500
ASKED_LANGUAGES = ("fi", "ja", "te")
_STAGES = ("stage1", "stage2")


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


def prepare(folder: Path) -> dict:
    """Makes all data that the runs under `folder` need; returns counts.

    The encyclopaedia is written as Wikipedia dumps, which go through `class-jax make-data`'s steps: pages, passages,
    mined queries of stage 1 and anchor questions of stage 2. Held-out questions and a vocabulary come beside them.
    """
    data, dumps = folder / "data", folder / "dumps"
    counts = data / "demo.json"
    if counts.exists():
        return read_json(counts)
    tables = thinned(load_tables(), ONE_COUNTRY_IN)
    build_dumps(dumps, one_country_in=ONE_COUNTRY_IN)
    files = {"DUMPS": dumps, "PHRASEBOOK": dumps / PHRASEBOOK}
    config = make_data.configured(
        ["data/encyclopaedia.gin"],
        [f"{name} = {str(path)!r}" for name, path in files.items()],
    )
    made = make_data.make_data(config, data).counts
    asked = write_held_out(tables, data, data)
    # No training question: the vocabulary would keep their wordings whole, and those of others would fall apart.
    train_vocabulary(
        (passage_text(passage) for passage in read_passages(paths(folder)["PASSAGES"])),
        data / "vocabulary.model",
        VOCABULARY_SIZE,
        character_coverage=1.0,
        byte_fallback=False,
        symbols=PREFIXES,
    )
    found = {
        "entities": len(tables.types),
        "facts": len(tables.facts),
        "passages": made["passages"]["passages"],
        "queries": sum(n for key, n in made["stage1"].items() if key.startswith("queries/")),
        "questions": sum(n for key, n in made["stage2"].items() if key.startswith("questions/")),
        "heldout": sum(count["heldout"] for count in asked.values()),
    }
    write_json(counts, found)
    return found


def run(folder: Path, extra: list[str], console: Console) -> Table:
    """The whole job; returns the table of results.

    Args:
      folder: where everything is written.
      extra: further gin bindings for both stages.
      console: where it prints.

    Raises:
      InputError: see `class_jax.training.loop.train`.
    """
    clock = _Clock(console)
    clock.say("making data from the encyclopaedia's dumps, training a vocabulary")
    counts = prepare(folder)
    console.print(
        f"{counts['entities']} entities, {counts['facts']} facts, {counts['passages']} passages in {len(LANGUAGES)} "
        f"languages; {counts['queries']} mined queries, {counts['questions']} questions made from anchors; "
        f"{counts['heldout']} held-out questions"
    )
    scores = {}
    for stage, what in zip(_STAGES, ("distillation from a BM25 English teacher", "end-to-end training"), strict=True):
        clock.say(f"{stage}: {what}")
        scores[stage] = _stage(folder, stage, extra)
    clock.say("scoring BM25 and the untrained model, asking questions")
    config = configured(TrainConfig, [gin_file("stage2")], [*bindings(folder, "stage2"), *extra])
    data = open_data(config.data, config.model)
    evaluator = Evaluator(config.evaluation, config.model, data.vocabulary, data.store, data.languages)
    scores["bm25"] = bm25_scores(evaluator)
    scores["untrained"] = first_scores(folder / "stage1")
    table = results(scores, evaluator.questions)
    table.write(folder / "results")
    runs = {stage.replace("stage", "stage "): folder / stage / "metrics.jsonl" for stage in _STAGES}
    plot_curves(runs, folder / "curves.png", in_sequence=True, title="CLASS on the embedded encyclopaedia")
    ask(folder, config, evaluator, console)
    table.print(console)
    clock.say(f"done; table, curves and weights are in {folder}")
    return table


def _stage(folder: Path, stage: str, extra: list[str]) -> dict[str, float]:
    """Trains a stage, or reads its scores where it is done."""
    done = folder / stage / "scores.json"
    if done.exists():
        return read_json(done)
    scores = train_from_gin([gin_file(stage)], [*bindings(folder, stage), *extra])
    write_json(done, scores)
    return scores


def first_scores(run_folder: Path) -> dict[str, float]:
    """The evaluation before the first step, from a run's metrics."""
    series = read_metrics(run_folder / "metrics.jsonl")
    first = {name: values[0] for name, (steps, values) in series.items() if len(steps) and steps[0] == 0}
    return {name: float(value) for name, value in first.items() if name.startswith("eval/")}


def bm25_scores(evaluator: Evaluator) -> dict[str, float]:
    """R@k of BM25 over the passages that the retriever searches; it has no reader, so no F1."""
    index = BM25.from_store(evaluator.store, stem=True)
    texts = [question.text for question in evaluator.questions]
    rows, _ = index.search(texts, max(evaluator.config.ks), allowed=evaluator.retrieve_allowed)
    return evaluator.score_rows(rows)


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


def ask(folder: Path, config: TrainConfig, evaluator: Evaluator, console: Console) -> None:
    """Answers held-out questions; shows, in each of three languages, the answer it is surest of and what it read."""
    params = weights.load_params(str(folder / "stage2"), config.model)
    retriever = inference.retriever_params(params)
    rows, scores = evaluator.search(retriever, evaluator.config.num_passages, evaluator.read_allowed)
    answers = evaluator.answer(params, rows, scores)
    for code in ASKED_LANGUAGES:
        asked = [i for i, question in enumerate(evaluator.questions) if question.language == code]
        if not asked:
            continue
        i = max(asked, key=lambda i: answers.log_probabilities[i])
        question = evaluator.questions[i]
        right = " / ".join(question.answers)
        console.print(f"\n[bold]{question.text}[/bold] ({question.language})", highlight=False)
        console.print(
            f"  answer: [bold]{answers.texts[i]}[/bold]  (expected: {right}; "
            f"log-probability {answers.log_probabilities[i]:.2f})",
            highlight=False,
        )
        order = np.argsort(-answers.passage_attention[i])[:3]
        for n in order:
            passage = evaluator.store.passage(int(rows[i, n]))
            console.print(
                f"  {answers.passage_attention[i, n]:.2f} of the reader's attention, score {scores[i, n]:.1f}: "
                f"{passage.title}: {passage.text[:100]}",
                highlight=False,
            )


class _Clock:
    """Says what begins, and how long the job has run."""

    def __init__(self, console: Console):
        self.console, self.begun = console, time.monotonic()

    def say(self, what: str) -> None:
        self.console.print(f"[bold green][{time.monotonic() - self.begun:4.0f} s][/bold green] {what}")


def main() -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write")
    parser.add_argument("--gin", action="append", default=[], help="a further gin binding for both stages")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(name)s: %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        run(arguments.out, arguments.gin, Console())
    except InputError as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
