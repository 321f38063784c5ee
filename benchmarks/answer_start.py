# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""CPU seconds and compiled programs of `class-jax answer`, first and second: `python benchmarks/answer_start.py`.

The model has the demo's sizes and random weights, the corpus made-up passages of many lengths. Each call is a process
of its own; the compilation cache is an empty folder at first.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from class_jax.api import CLASS
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary, train_vocabulary
from class_jax.models import ModelConfig, create, split

# As in gin/runs/demo_common.gin.
_SIZES = {
    "vocab_size": 3520,
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "retriever_head": 3,
    "retriever_layer": 1,
}
_PIECES = 3500
_COMMAND = "import sys; from class_jax.commands.cli import main; sys.exit(main())"


def make(folder: Path, passages: int) -> None:
    """Writes model and token store under `folder`."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abdegiklmnoprstuv"), rng.integers(3, 9))) for _ in range(4000)]
    made = [
        Passage(f"p{i}", " ".join(rng.choice(words, rng.integers(3, 16))), str(rng.choice(words)))
        for i in range(passages)
    ]
    write_passages(folder / "passages.tsv", made)
    train_vocabulary((p.text for p in made), folder / "spiece.model", _PIECES)
    vocabulary = Vocabulary.load(folder / "spiece.model")
    build_store(folder / "passages.tsv", vocabulary, folder / "store", progress=False)
    config = ModelConfig(**_SIZES)
    CLASS(config, split(create(config))[1], vocabulary).save_pretrained(folder / "model")


def call(folder: Path, cache: Path, passages: int) -> tuple[float, float]:
    """Answers one question in a process of its own; returns its CPU seconds and its seconds."""
    command = [sys.executable, "-c", _COMMAND, "answer", "--model", folder / "model", "--store", folder / "store"]
    command += ["--passages", str(passages), "--language", "en", "which word comes first?"]
    environment = os.environ | {"CLASS_JAX_COMPILATION_CACHE": str(cache)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - begun


def main() -> None:
    """Prints a line for each call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=int, default=2000, help="passages of the corpus")
    parser.add_argument("--passages", type=int, default=20, help="passages read")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.corpus)
        cache = folder / "programs"
        for which in ("first", "second"):
            cpu, seconds = call(folder, cache, arguments.passages)
            programs = len(list(cache.glob("*-cache"))) if cache.is_dir() else 0
            print(
                f"{which}: {cpu:.1f} CPU seconds, {seconds:.1f} seconds, {programs} programs in the cache", flush=True
            )


if __name__ == "__main__":
    main()
