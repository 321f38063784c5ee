# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The residual index on vectors of a trained model: bytes a vector, recall of exact MaxSim's top 100, speed.

    python benchmarks/residual.py --model runs/real_parallel/model --data runs/real_parallel/data \
        --questions ../shared/data/xor_parallel --out /tmp/residual

Questions of `heldout.jsonl` are searched; the questions' second moment is taken from other ones (`--questions`, files
`*-en.*` of one question a line). With `--head` given twice the vectors of two heads are laid side by side: 64 numbers
of trained weights from a model whose heads have 32. Nothing is trained here.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from class_jax import inference
from class_jax.checkpoints.pretrained import load_pretrained
from class_jax.corpus.inputs import encode_question
from class_jax.corpus.store import TokenStore
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.questions import read_xor
from class_jax.retrieval.embed import EmbedSettings, embed_corpus
from class_jax.retrieval.encode import Encoder, encode_questions
from class_jax.retrieval.residual import ResidualSettings, build_residual
from class_jax.retrieval.residual.build import question_moment
from class_jax.retrieval.vectors import ExactIndex


def side_by_side(encoders):
    """An encoder whose vectors are those of several, one after the other."""
    if len(encoders) == 1:
        return encoders[0]

    def joined(name):
        def encode(params, ids, lengths):
            found = [getattr(encoder, name)(params, ids, lengths) for encoder in encoders]
            return jnp.concatenate([vectors for vectors, _ in found], axis=-1), found[0][1]

        return encode

    return Encoder(joined("questions"), joined("passages"), "multi_vector")


def other_questions(folder, vocabulary, count, seed=0):
    """Up to `count` tokenised lines of a folder's parallel questions, none of which is searched for."""
    lines = []
    for path in sorted(Path(folder).glob("*-en.*")):
        language = path.suffix[1:]
        lines += [(line, language) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    chosen = np.random.default_rng(seed).permutation(len(lines))[:count]
    return [np.array(encode_question(vocabulary, *lines[i])) for i in chosen]


def recall(found, exact):
    """Share of the exact rows [B, k] that are among those found [B, k]."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def timed(index, vectors, mask, k, count):
    """Seconds of each of the first `count` questions searched alone, after a first pass over them."""
    for seconds in ([], []):
        for b in range(min(count, len(vectors))):
            begun = time.perf_counter()
            index.search(vectors[b : b + 1], mask[b : b + 1], k)
            seconds.append(time.perf_counter() - begun)
    return np.array(seconds)


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with store, vocabulary.model, heldout.jsonl")
    parser.add_argument("--questions", help="folder of questions for the second moment; none: not used")
    parser.add_argument("--out", type=Path, required=True, help="folder for vectors and indexes; kept")
    parser.add_argument("--head", type=int, action="append", help="retriever head; twice: two side by side")
    parser.add_argument("--bits", type=float, action="append", help="mean bits per dimension")
    parser.add_argument("--centroids", type=int)
    parser.add_argument("--searched", type=int, default=200, help="held-out questions to search for")
    parser.add_argument("--timed", type=int, default=20, help="questions searched alone, for the times")
    parser.add_argument("-k", type=int, default=100)
    arguments = parser.parse_args()

    config, params, _ = load_pretrained(arguments.model)
    heads = arguments.head or [config.retriever_head]
    encoder = side_by_side([inference.encoder(dataclasses.replace(config, retriever_head=h)) for h in heads])
    vocabulary = Vocabulary.load(arguments.data / "vocabulary.model")
    store = TokenStore.open(arguments.data / "store", vocabulary)
    name = "-".join(map(str, heads))
    vectors = embed_corpus(
        encoder,
        params,
        store,
        arguments.out / f"vectors-{name}",
        model=f"head {name}",
        settings=EmbedSettings("float32"),
    )
    norms = np.linalg.norm(vectors.read(0, vectors.num_passages), axis=1)
    print(f"{vectors.num_passages} passages, {vectors.num_vectors} vectors of {vectors.width} numbers")
    print(
        f"norms: min {norms.min():.3f} median {np.median(norms):.3f} max {norms.max():.3f}, "
        f"coefficient of variation {norms.std() / norms.mean():.3f}, log-normal sigma {np.log(norms).std():.3f}"
    )
    held_out = list(read_xor(arguments.data / "heldout.jsonl"))
    chosen = np.linspace(0, len(held_out) - 1, min(arguments.searched, len(held_out))).round().astype(int)
    tokens = [np.array(encode_question(vocabulary, held_out[i].text, held_out[i].language)) for i in chosen]
    questions = encode_questions(encoder, params, tokens)
    moment = None
    if arguments.questions:
        others = other_questions(arguments.questions, vocabulary, 4000)
        moment = question_moment(*encode_questions(encoder, params, others))
    k = arguments.k
    exact = ExactIndex(vectors)
    exact_rows, _ = exact.search(*questions, k)
    print(f"exact: {1e3 * np.median(timed(exact, *questions, k, 3)):.1f} ms a question", flush=True)
    print("bits  bytes/vector  probes  candidates  recall  in twice as many  ms p50  ms p95")
    for bits in arguments.bits or [2.0, 2.25, 4.0]:
        folder = arguments.out / f"residual-{name}-{bits}-{arguments.centroids}-{moment is not None}"
        begun = time.perf_counter()
        settings = ResidualSettings(bits=bits, centroids=arguments.centroids)
        index = build_residual(vectors, folder, moment=moment, settings=settings)
        built = time.perf_counter() - begun
        sums = index.bytes_on_disk()
        each = sum(sums.values()) / vectors.num_vectors
        for index.probes, index.candidates in ((8, 500), (32, 1000), (32, 2000), (32, vectors.num_passages)):
            twice, _ = index.search(*questions, 2 * k)
            ms = 1e3 * np.quantile(timed(index, *questions, k, arguments.timed), [0.5, 0.95])
            found = recall(twice[:, :k], exact_rows), recall(twice, exact_rows)
            print(
                f"{bits:4}  {each:12.2f}  {index.probes:6}  {index.candidates:10}  {found[0]:.4f}  {found[1]:16.4f}  "
                f"{ms[0]:6.1f}  {ms[1]:6.1f}",
                flush=True,
            )
        shares = ", ".join(f"{key} {value / vectors.num_vectors:.3f}" for key, value in sums.items())
        print(f"      built in {built:.0f} s; {len(index.codec.centroids)} centroids; bytes a vector: {shares}")
        print(f"      bytes of the classes {index.codec.row_bytes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
