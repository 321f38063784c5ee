# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Passages encoded, batches fed, lists refreshed and questions searched in a second, on any device.

    python benchmarks/throughput.py --cut 4 --out cpu.json                       # a small corpus on two CPU cores
    python benchmarks/throughput.py --size large --dtype bfloat16 --corpus 200000 --encode-batch 512 \\
        --peak-tflops 790 --step-seconds 8 --out h200.json                       # an accelerator
    python benchmarks/throughput.py --compare before.json after.json

The data is made: passages of about 100 words and 160 tokens, and questions of 8 words, in a token store, a question
table and passage lists like those of a run. Weights are random. `benchmarks/step.py` times the training step that the
feed's device waits for; its seconds go into `--step-seconds`. Needs neither TensorFlow nor PyTorch.
"""

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import records

PARTS = ("encode", "feed", "refresh", "search")


@dataclasses.dataclass
class World:
    """What is measured on: a model's retriever, a corpus, questions and their passage lists."""

    config: object
    encoder: object
    params: object
    vocabulary: object
    store: object
    table: object
    lists: object
    folder: Path


def made_words(rng, count, syllables=("ba", "do", "ki", "lu", "me", "no", "pi", "ra", "su", "te", "va", "zo")):
    """Words of two to four syllables; frequent ones become pieces of their own."""
    return ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(count)]


def make_world(given, folder):
    """Makes the data in `folder` and the model's random weights."""
    from class_jax.corpus.passages import Passage, write_passages
    from class_jax.corpus.store import build_store
    from class_jax.corpus.vocabulary import train_vocabulary
    from class_jax.models import create, inference, split
    from class_jax.planning.sizes import model_config
    from class_jax.questions.readers import Question
    from class_jax.questions.table import QuestionTable
    from class_jax.refresh.lists import PassageLists

    rng = np.random.default_rng(given.seed)
    words = np.array(made_words(rng, 4000))
    chance = 1 / np.arange(20, len(words) + 20)
    drawn = lambda count: " ".join(rng.choice(words, count, p=chance / chance.sum()))  # noqa: E731
    lengths = np.clip(rng.normal(100, 15, given.corpus), 20, 140).astype(int)
    passages = [Passage(f"p{i}", drawn(length), drawn(2)) for i, length in enumerate(lengths)]
    write_passages(folder / "passages.tsv", passages)
    vocabulary = train_vocabulary((drawn(100) for _ in range(500)), folder / "vocabulary.model", 1000)
    store = build_store(folder / "passages.tsv", vocabulary, folder / "store", processes=1)
    questions = [Question(f"q{i}", drawn(8), (drawn(3),), "fi", drawn(8)) for i in range(given.questions)]
    table = QuestionTable.from_questions(questions, vocabulary)
    rows = np.stack([rng.permutation(store.num_passages)[: given.passages] for _ in range(len(table))])
    lists = PassageLists(rows, np.zeros(rows.shape, np.float32), 0, 0, store.fingerprint, table.fingerprint)
    config = dataclasses.replace(model_config(given.size), dtype=given.dtype, dropout_rate=0.0)
    if given.cut is not None:
        changes = {"num_layers": given.cut, "num_decoder_layers": given.cut, "retriever_layer": None}
        config = dataclasses.replace(config, **changes)
    params = inference.retriever_params(split(create(config))[1])
    return World(config, inference.encoder(config), params, vocabulary, store, table, lists, folder)


def timed(function, repeats):
    """Seconds of each call after the first, which compiles."""
    found = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        function()
        found.append(time.perf_counter() - begun)
    return records.spread(found[1:])


def encoding(world, given):
    """Encodes the corpus in batches of like length, vectors staying on the device."""
    import jax

    from class_jax.common.batching import length_batches
    from class_jax.models.encode import PASSAGE_BUCKETS, embed_passages, padded_batch
    from class_jax.planning.flops import count_flops

    store, flops = world.store, []
    batches = []
    for positions, length in length_batches(np.asarray(store.lengths), given.encode_batch, PASSAGE_BUCKETS):
        ids, lengths, _ = padded_batch(store, positions, given.encode_batch, length)
        batches.append((ids, lengths))
    shapes = {}
    for ids, lengths in batches:
        if ids.shape not in shapes:
            shapes[ids.shape] = count_flops(world.encoder.passages, world.params, ids, lengths)
        flops.append(shapes[ids.shape].model)

    def encode():
        # Two batches are under way at a time, as when a corpus is embedded.
        before = None
        for ids, lengths in batches:
            vectors = embed_passages(world.encoder, world.params, ids, lengths).vectors
            if before is not None:
                before.block_until_ready()
            before = vectors
        jax.block_until_ready(before)

    found = timed(encode, given.repeats)
    seconds, tokens = found["seconds"], int(np.sum(store.lengths))
    padded = sum(ids.size for ids, _ in batches)
    rates = {"passages_per_second": store.num_passages / seconds, "tokens_per_second": tokens / seconds}
    peak = {} if given.peak_tflops is None else {"mfu": sum(flops) / seconds / given.peak_tflops / 1e12}
    shape = {"tokens": tokens / store.num_passages, "padding": 1 - tokens / padded, "flops": sum(flops)}
    return [{"part": "encode", **found, **rates, **peak, **shape}]


def feeding(world, given):
    """Makes batches of both stages; and, beside a step of known length, how long the device waits for them."""
    from class_jax.training.feed import Feed, TeacherTexts, prefetch
    from class_jax.training.token_slots import Packer

    rows = []
    for stage in ("end_to_end", "stage1"):
        texts = TeacherTexts(world.vocabulary, world.store) if stage == "stage1" else None
        arguments = (world.table, world.store, world.lists, given.batch, given.passages, given.seed, stage)
        feed = Feed(*arguments, teacher_texts=texts, packer=Packer())
        steps = iter(range(1, 10_000))
        found = timed(lambda feed=feed, steps=steps: feed.batch(next(steps)), max(8, given.repeats))
        row = {"part": "feed", "objective": stage, **found, "batches_per_second": 1 / found["seconds"]}
        if given.step_seconds:
            row["idle"] = idle_share(prefetch(feed, 0), given.step_seconds, given.idle_steps)
        rows.append(row)
    return rows


def idle_share(batches, step_seconds, steps):
    """Share of the time for which a device that takes so long for a step waits for its batch; the first is left out."""
    next(batches)
    waited, begun = 0.0, time.perf_counter()
    for _ in range(steps):
        time.sleep(step_seconds)
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    whole = time.perf_counter() - begun
    batches.close()
    return waited / whole


def refreshing(world, given):
    """Makes passage lists for all questions: embeds the corpus, searches it, writes the lists."""
    from class_jax.refresh.refresher import Refresher

    table = world.table
    questions = [table.question_tokens[row] for row in range(len(table))]
    folder = world.folder / "lists"
    with Refresher(folder, questions, world.store, world.encoder, given.passages, keep=1) as refresher:
        versions = iter(range(10_000))

        def refresh():
            version = next(versions)
            refresher.start(version, world.params, version)
            refresher.wait()

        found = timed(refresh, given.repeats)
    seconds = found["seconds"]
    rates = {"passages_per_second": world.store.num_passages / seconds, "questions_per_second": len(table) / seconds}
    return [{"part": "refresh", "backend": "exact", **found, **rates}]


def searching(world, given):
    """Searches an embedded corpus, some questions at a time (`benchmarks/retrieval.py` has other indexes)."""
    from class_jax.models.encode import encode_questions
    from class_jax.retrieval.embed import EmbedSettings, embed_corpus
    from class_jax.retrieval.index import open_index

    table, batch = world.table, given.search_batch
    embed_corpus(
        world.encoder,
        world.params,
        world.store,
        world.folder / "index",
        model="random",
        settings=EmbedSettings(batch=given.encode_batch),
    )
    index = open_index(world.folder / "index")
    asked = [table.question_tokens[row] for row in range(min(batch, len(table)))]
    vectors, mask = (np.asarray(x) for x in encode_questions(world.encoder, world.params, asked))
    vectors = vectors.astype(np.float32)
    found = timed(lambda: index.search(vectors, mask, given.passages), max(5, given.repeats))
    return [{"part": "search", "index": index.kind, **found, "questions_per_second": len(asked) / found["seconds"]}]


MEASURES = {"encode": encoding, "feed": feeding, "refresh": refreshing, "search": searching}


def show(result):
    """Prints the rows."""
    from rich.console import Console
    from rich.table import Table

    columns = ("seconds", "fastest", "slowest")
    rates = ("passages_per_second", "tokens_per_second", "questions_per_second", "batches_per_second")
    table = Table(title="{count} x {kind}".format(**result["devices"]))
    for column in ("", *columns, *(name.replace("_per_second", "/s") for name in rates), "MFU", "idle"):
        table.add_column(column, justify="right" if column else "left")
    for row in result["throughput"]:
        name = " ".join(value for value in row.values() if isinstance(value, str))
        numbers = [f"{row[column]:.4f}" for column in columns]
        numbers += [f"{row[column]:.1f}" if column in row else "" for column in rates]
        numbers += [f"{row[column]:.1%}" if column in row else "" for column in ("mfu", "idle")]
        table.add_row(name, *numbers)
    Console(width=140).print(table)


def parser():
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="compare two files")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    made.add_argument("--size", default="small", help="file of gin/models")
    made.add_argument("--cut", type=int, help="layers of the encoder, in place of the size's")
    made.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    made.add_argument("--corpus", type=int, default=1000, help="passages")
    made.add_argument("--questions", type=int, default=256)
    made.add_argument("--batch", type=int, default=64, help="questions of a training batch")
    made.add_argument("--passages", type=int, default=100, help="of a question's list")
    made.add_argument("--encode-batch", type=int, default=64, help="passages encoded at once")
    made.add_argument("--search-batch", type=int, default=16, help="questions searched at once")
    made.add_argument("--step-seconds", type=float, help="of a training step; then the device's idle share is printed")
    made.add_argument("--idle-steps", type=int, default=20, help="steps over which that share is measured")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--peak-tflops", type=float, help="of all devices together; then MFU is printed")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--work", type=Path, help="folder for the made data; by default one that is removed at the end")
    made.add_argument("--out", type=Path, help="JSON to write")
    return made


def measure(given):
    """Makes the data and measures the parts asked for."""
    folder = Path(tempfile.mkdtemp(prefix="throughput-", dir=given.work))
    try:
        world = make_world(given, folder)
        rows = [row for part in given.parts for row in MEASURES[part](world, given)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"devices": records.devices(), "throughput": rows}


def main():
    """Measures, prints and writes, or compares; returns the exit status."""
    given = parser().parse_args()
    return records.exit_status(lambda: run(given))


def run(given):
    """Does what the arguments ask for."""
    if given.compare:
        records.compare(*given.compare)
        return
    result = measure(given)
    show(result)
    records.write(given, result)


if __name__ == "__main__":
    sys.exit(main())
