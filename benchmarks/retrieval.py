# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Every index over the same vectors: time to build, bytes a vector, recall of exact MaxSim, latency, memory.

(a) vectors of a trained model over real passages, with held-out questions (`make real` makes all of it):

    python benchmarks/retrieval.py --model runs/real_parallel/model --data runs/real_parallel/data \
        --public ../shared/data --out /tmp/retrieval --head 2 --head 3

(b) made vectors, whose norms spread as those of (a) do:

    python benchmarks/retrieval.py --made 1000000 --out /tmp/made --centroids 8192

Each index is measured in a process of its own, once for each number of threads (`--threads`, by CPU affinity).
`--head` given twice lays the vectors of two heads side by side: 64 numbers of trained weights from a model whose heads
have 32. Sample questions, for which bits are spent, are XQuAD's training questions; those searched are held out. Peers
are measured where they are installed: faiss (IVF-PQ over token vectors, then MaxSim over stored float16 vectors).
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

KINDS = ("exact", "residual", "residual+exact", "scann", "faiss")


def side_by_side(encoders):
    """An encoder whose vectors are those of several, one after the other."""
    import jax.numpy as jnp

    from class_jax.models.encode import DualEncoder

    def joined(name):
        def encode(params, ids, lengths):
            found = [getattr(encoder, name)(params, ids, lengths) for encoder in encoders]
            return jnp.concatenate([vectors for vectors, _ in found], axis=-1), found[0][1]

        return encode

    return DualEncoder(joined("questions"), joined("passages"), "multi_vector")


def embed_real(arguments):
    """Embeds passages, held-out questions and sample questions; writes `vectors/` and `questions.npz`."""
    from class_jax.checkpoints.pretrained import load_pretrained
    from class_jax.corpus.inputs import encode_question
    from class_jax.corpus.store import TokenStore
    from class_jax.corpus.vocabulary import Vocabulary
    from class_jax.models import inference
    from class_jax.models.encode import encode_questions
    from class_jax.questions.readers import read_xor, read_xquad
    from class_jax.questions.real_pairs import XQUAD_LANGUAGES, is_training
    from class_jax.retrieval.embed import EmbedSettings, embed_corpus

    config, params, *_ = load_pretrained(arguments.model)
    heads = arguments.head or [config.retriever_head]
    encoder = side_by_side([inference.encoder(dataclasses.replace(config, retriever_head=h)) for h in heads])
    vocabulary = Vocabulary.load(arguments.data / "vocabulary.model")
    store = TokenStore.open(arguments.data / "store", vocabulary)
    name = "-".join(map(str, heads))
    embed_corpus(
        encoder,
        params,
        store,
        arguments.out / "vectors",
        model=f"heads {name}",
        settings=EmbedSettings("float16"),
    )
    held_out = list(read_xor(arguments.data / "heldout.jsonl"))
    chosen = np.linspace(0, len(held_out) - 1, min(arguments.searched, len(held_out))).round().astype(int)
    searched = [(held_out[i].text, held_out[i].language) for i in chosen]
    others = []
    for language in ("en", *XQUAD_LANGUAGES):
        found, _ = read_xquad(arguments.public / "xquad" / f"xquad.{language}.json")
        others += [(q.text, q.language) for q in found if is_training(q.id.partition("-")[2])]
    vectors, mask = (
        encode_questions(encoder, params, [np.array(encode_question(vocabulary, *q)) for q in asked])
        for asked in (searched, others)
    )
    np.savez(arguments.out / "questions.npz", q=vectors[0], qm=vectors[1], o=mask[0], om=mask[1])


def make_vectors(arguments, width=64, spread=0.1, seed=0):
    """Writes made vectors and questions: words of a vocabulary with noise, norms log-normal with the given spread."""
    from class_jax.common.files import file_entry
    from class_jax.retrieval.index import write_manifest

    rng, folder, part, tokens = np.random.default_rng(seed), arguments.out / "vectors", 16384, arguments.tokens
    (folder / "parts").mkdir(parents=True)
    words = rng.normal(size=(20_000, width)).astype(np.float32)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    frequency = 1 / np.arange(1, len(words) + 1)
    frequency /= frequency.sum()

    def drawn(count):
        vectors = words[rng.choice(len(words), count, p=frequency)]
        vectors = vectors + rng.normal(size=vectors.shape).astype(np.float32) * (0.5 / np.sqrt(width))
        return vectors * rng.lognormal(mean=np.log(2.65), sigma=spread, size=(count, 1)).astype(np.float32)

    files = {}
    for i, start in enumerate(range(0, arguments.made, part)):
        count = min(part, arguments.made - start)
        path = folder / "parts" / f"{i:05d}.vectors"
        drawn(count * tokens).astype(np.float16).tofile(path)
        files[f"parts/{path.name}"] = file_entry(path)
    np.full(arguments.made, tokens, "<u2").tofile(folder / "lengths.bin")
    files["lengths.bin"] = file_entry(folder / "lengths.bin")
    manifest = {"kind": "exact", "retriever": "multi_vector", "model": "made", "corpus": "made", "vocabulary": "made"}
    manifest |= {"passages": arguments.made, "width": width, "vectors": arguments.made * tokens, "dtype": "float16"}
    write_manifest(folder, manifest | {"part_passages": part, "deleted": None, "files": files})
    questions = [drawn(arguments.searched * tokens).reshape(-1, tokens, width) for _ in range(2)]
    mask = np.ones((arguments.searched, tokens), bool)
    np.savez(arguments.out / "questions.npz", q=questions[0], qm=mask, o=questions[1], om=mask)


def questions_of(out):
    """Questions searched (vectors, mask), and tokens of sample questions."""
    with np.load(out / "questions.npz") as arrays:
        return (arrays["q"], arrays["qm"]), arrays["o"][arrays["om"]]


class Faiss:
    """IVF-PQ over token vectors finds candidates; MaxSim over the float16 vectors ranks them, as ReAtt does."""

    def __init__(self, store, folder, lists, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.store, path = store, folder / "faiss.index"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            width, quantiser = store.width, faiss.IndexFlatIP(store.width)
            index = faiss.IndexIVFPQ(quantiser, width, lists, 16, 8, faiss.METRIC_INNER_PRODUCT)
            index.train(store.sample(50 * lists)[0])
            for _, _, vectors in store.blocks(4096):
                index.add(vectors)
            faiss.write_index(index, str(path))
        self.index, self.bytes = faiss.read_index(str(path)), path.stat().st_size
        self.owner = np.repeat(np.arange(store.num_passages), np.asarray(store.lengths))
        self.neighbours, self.candidates = 256, 1000

    def search(self, vectors, mask, k):
        """As `class_jax.retrieval.index.Index.search`."""
        from class_jax.retrieval.rescore import with_stored
        from class_jax.retrieval.scann.index import ranked_by_tokens

        exact = with_stored(self.store)
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        for b, (question, real) in enumerate(zip(vectors, mask, strict=True)):
            values, ids = self.index.search(np.ascontiguousarray(question[real]), self.neighbours)
            found = ranked_by_tokens(self.owner[ids], values, self.candidates, -1)
            found = np.sort(found)
            values = np.asarray(exact(question[real], found), np.float32)
            order = np.lexsort((found, -values))[:k]
            rows[b, : len(order)], scores[b, : len(order)] = found[order], values[order]
        return rows, scores


def opened(kind, arguments, threads):
    """Opens an index, built where it is missing: (index, seconds it took, bytes a vector on the disk)."""
    from class_jax.retrieval.rescore import with_stored
    from class_jax.retrieval.residual import ResidualSettings, build_residual
    from class_jax.retrieval.scann.kind import build_scann
    from class_jax.retrieval.vectors import ExactIndex, VectorStore

    store, out = VectorStore.open(arguments.out / "vectors"), arguments.out
    stored = sum(entry["bytes"] for entry in store.manifest["files"].values())
    begun = time.perf_counter()
    if kind == "exact":
        index, size = ExactIndex(store), stored
    elif kind.startswith("residual"):
        settings = ResidualSettings(bytes_per_vector=arguments.bytes, centroids=arguments.centroids)
        index = build_residual(
            store, out / f"residual-{arguments.bytes:g}", questions=questions_of(out)[1], settings=settings
        )
        size = sum(index.bytes_on_disk().values())
        if kind == "residual+exact":
            index.exact, size = with_stored(store), size + stored
    elif kind == "scann":
        from class_jax.retrieval.index import open_index

        there = (out / "scann" / "manifest.json").exists()
        index = open_index(out / "scann") if there else build_scann(store, out / "scann")
        size = stored + sum(p.stat().st_size for p in (out / "scann").rglob("*") if p.is_file())
    else:
        index = Faiss(store, out / "faiss", arguments.centroids or 4096, threads)
        size = stored + index.bytes
    return index, time.perf_counter() - begun, size / store.num_vectors


def settings_of(kind, index):
    """What is tried: attributes of the index by label."""
    if kind.startswith("residual"):
        whole = index.num_passages
        tried = [(8, 500), (32, 1000), (32, 2000)] + ([(32, whole)] if whole <= 10_000 else [(64, 10_000)])
        return {f"{probes} probes, {n} candidates": {"probes": probes, "candidates": n} for probes, n in tried}
    if kind in ("scann", "faiss"):
        return {f"{n} neighbours, 1000 candidates": {"neighbours": n, "candidates": 1000} for n in (256, 2048)}
    return {"": {}}


def measure(kind, threads, arguments):
    """Prints one JSON line for each setting of an index."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    index, built, size = opened(kind, arguments, threads)
    (vectors, mask), _ = questions_of(arguments.out)
    exact = np.load(arguments.out / "exact.npy") if kind != "exact" else None
    for label, values in settings_of(kind, index).items():
        for name, value in values.items():
            setattr(index, name, value)
        if kind == "faiss":
            index.index.nprobe = 32
        timed = range(min(arguments.timed, len(vectors)))
        for seconds in ([], []):  # the first pass compiles
            for b in timed:
                begun = time.perf_counter()
                index.search(vectors[b : b + 1], mask[b : b + 1], 100)
                seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        rows, _ = index.search(vectors, mask, 100)
        batch = time.perf_counter() - begun
        if kind == "exact":
            np.save(arguments.out / "exact.npy", rows)
            exact = rows
        found = {
            k: np.mean([len({*a[:k]} & {*b[:k]}) / k for a, b in zip(rows.tolist(), exact.tolist(), strict=True)])
            for k in (10, 100)
        }
        line = {
            "index": kind,
            "threads": threads,
            "setting": label,
            "built_s": round(built, 1),
            "bytes_per_vector": round(size, 2),
            "recall@10": round(float(found[10]), 4),
            "recall@100": round(float(found[100]), 4),
            "p50_ms": round(1e3 * float(np.quantile(seconds, 0.5)), 1),
            "p95_ms": round(1e3 * float(np.quantile(seconds, 0.95)), 1),
            "questions_per_s": round(len(vectors) / batch, 2),
            "peak_mib": peak_memory(),
        }
        print(json.dumps(line), flush=True)


def peak_memory():
    """Most memory that this process has held, MiB; unlike `ru_maxrss` not that of the process which started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024


def installed(kind):
    """Whether a peer's package is there."""
    import importlib.util

    return kind not in ("faiss", "scann") or importlib.util.find_spec(kind) is not None


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="(a) Hugging Face folder")
    parser.add_argument("--data", type=Path, help="(a) folder with store, vocabulary.model, heldout.jsonl")
    parser.add_argument("--public", type=Path, help="(a) folder of public data with xquad/, for sample questions")
    parser.add_argument("--head", type=int, action="append", help="(a) retriever head; twice: two side by side")
    parser.add_argument("--made", type=int, help="(b) passages of made vectors")
    parser.add_argument("--tokens", type=int, default=16, help="(b) vectors of a passage and of a question")
    parser.add_argument("--out", type=Path, required=True, help="folder for vectors, indexes and results; kept")
    parser.add_argument("--bytes", type=float, default=24.0, help="residual: bytes a vector, all included")
    parser.add_argument("--centroids", type=int, help="residual and faiss; chosen by size if left out")
    parser.add_argument("--searched", type=int, default=200, help="questions to search for")
    parser.add_argument("--timed", type=int, default=20, help="questions searched one at a time, for the latencies")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measure(arguments.worker[0], int(arguments.worker[1]), arguments)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not (arguments.out / "questions.npz").exists():
        (make_vectors if arguments.made else embed_real)(arguments)
    from class_jax.retrieval.vectors import VectorStore

    store = VectorStore.open(arguments.out / "vectors")
    sampled, _ = store.sample(1_000_000)
    norms = np.linalg.norm(sampled, axis=1)
    print(
        f"{store.num_passages} passages, {store.num_vectors} vectors of {store.width} numbers; norms: median "
        f"{np.median(norms):.3f}, coefficient of variation {norms.std() / norms.mean():.3f}",
        flush=True,
    )
    with open(arguments.out / "results.jsonl", "a", encoding="utf-8") as results:
        for kind in arguments.kinds:
            if not installed(kind):
                print(f"{kind}: not installed")
                continue
            # The most threads first: they build what the others open.
            for threads in sorted(arguments.threads, reverse=True):
                command = [sys.executable, __file__, *sys.argv[1:], "--worker", kind, str(threads)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
                print(done.stdout, end="", flush=True)
                results.write(done.stdout)
                if done.returncode:
                    print(f"{kind} with {threads} threads: ended with status {done.returncode}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
