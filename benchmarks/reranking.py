# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Question-passage pairs scored per second, beside transformers' PyTorch mBART with the same weights.

    python benchmarks/reranking.py --repeats 3 --out reranking.json

Both sides score the same pairs of tokens by the mean log-probability of the question's tokens; the scores are compared.
transformers' side is what one would write with its mBART: batches of pairs, padded to the longest of the batch, through
`model(input_ids, attention_mask, labels)`, then a log-softmax over its logits. Ours is what `class-jax rerank` runs.
Kinds of work: `one` question with passages of its own, all of one length; `varied`, the same with lengths from half to
one and a half of that; `shared`, several questions whose passages overlap, such as one question in several languages.

Each side runs in a process of its own; the two take turns within each repetition, so that whatever else the machine
does strikes both. Pairs per second are medians. Both take a GPU where their library sees one.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import records
import workers

# mBART-50's vocabulary and the shape of mBART-large, except for the number of layers.
SHAPE = {
    "vocab_size": 250054,
    "d_model": 1024,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "activation_function": "relu",
    "scale_embedding": True,
}
EOS, PAD, FIRST_ID, TAG = 2, 1, 4, 250003


def make_work(given, seed):
    """Tokens of passages and questions, and the pairs (passage, question) to score."""
    rng = np.random.default_rng(seed)
    Q, N, pool = given["questions"], given["passages"], given["pool"]
    low = given["passage_tokens"] if not given["vary"] else given["passage_tokens"] // 2
    high = given["passage_tokens"] if not given["vary"] else given["passage_tokens"] * 3 // 2

    def tokens(count):
        return [TAG, *rng.integers(FIRST_ID, TAG, count - 2).tolist(), EOS]

    passages = [tokens(int(rng.integers(low, high + 1))) for _ in range(pool)]
    questions = [tokens(given["question_tokens"] + 1) for _ in range(Q)]
    pairs = [(int(m), q) for q in range(Q) for m in np.sort(rng.choice(pool, N, replace=False))]
    return passages, questions, pairs


def jax_side(folder, given):
    """Returns a function of a seed that scores one piece of work: seconds, scores."""
    from class_jax.checkpoints.mbart_files import load_mbart
    from class_jax.reranking.score import SourcePassage, Target, score_pairs
    from class_jax.reranking.scorers import MBartScorer

    class TokenScorer(MBartScorer):
        """Takes passages and questions that are tokens already."""

        def source(self, passage):
            return self.passages[int(passage.id)], False

        def target(self, question, language):
            return Target(EOS, self.questions[int(question)], 1), False

    config, params, _ = load_mbart(folder, dtype=given["dtype"])
    scorer = TokenScorer(config, params, None)
    del params

    def run(seed):
        scorer.passages, scorer.questions, pairs = make_work(given, seed)
        sources = [SourcePassage(str(m), "", "text", None) for m in range(len(scorer.passages))]
        questions = [(str(q), None) for q in range(len(scorer.questions))]
        begun = time.perf_counter()
        found = score_pairs(scorer, sources, questions, np.array(pairs))
        return time.perf_counter() - begun, found.scores.tolist()

    return run


def torch_side(folder, given):
    """The same for transformers' mBART."""
    import torch
    from transformers import MBartForConditionalGeneration

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, given["dtype"])
    model = MBartForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()

    def padded(rows, filler):
        ids = torch.full((len(rows), max(map(len, rows))), filler)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids.to(device)

    @torch.inference_mode()
    def run(seed):
        passages, questions, pairs = make_work(given, seed)
        begun = time.perf_counter()
        scores = []
        for start in range(0, len(pairs), given["torch_batch"]):
            batch = pairs[start : start + given["torch_batch"]]
            ids = padded([passages[m] for m, _ in batch], PAD)
            labels = padded([questions[q] for _, q in batch], -100)
            logits = model(input_ids=ids, attention_mask=(ids != PAD).long(), labels=labels).logits
            counted = labels != -100
            counted[:, 0] = False  # the language's tag
            chosen = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
            scores += ((chosen * counted).sum(1) / counted.sum(1)).tolist()
        return time.perf_counter() - begun, scores

    return run


SIDES = {"class_jax": jax_side, "transformers": torch_side}


def work(side, folder, given):
    """A worker's whole life; see `workers.serve`."""
    workers.pin(given["cores"])
    run = SIDES[side](folder, given)
    workers.serve(lambda seed: dict(zip(("seconds", "scores"), run(seed), strict=True)))


def write_weights(folder, layers):
    """Random weights of mBART-large's shape with so many layers on each side, in the Hugging Face layout."""
    import torch
    from transformers import MBartConfig, MBartForConditionalGeneration

    torch.manual_seed(0)
    config = MBartConfig(**SHAPE, encoder_layers=layers, decoder_layers=layers, decoder_start_token_id=EOS)
    MBartForConditionalGeneration(config).save_pretrained(folder)


def summary(given, found):
    """A row for each side of the table."""
    pairs = given["questions"] * given["passages"]
    apart = max(
        float(np.abs(np.array(a["scores"]) - np.array(b["scores"])).max())
        for a, b in zip(found["class_jax"], found["transformers"], strict=True)
    )
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["class_jax"], found["transformers"], strict=True)]
    rows = []
    for side, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        rows.append(
            {
                "work": given["name"],
                "dtype": given["dtype"],
                "side": side,
                "pairs": pairs,
                "pairs_per_second": pairs / statistics.median(seconds),
                "seconds": seconds,
            }
        )
    rows[0] |= {"ratio": statistics.median(ratios), "ratios": ratios, "scores_apart": apart}
    return rows


def show(rows):
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="re-ranking: medians")
    for column in ("work", "type", "", "pairs", "pairs/s", "times as fast", "scores apart"):
        table.add_column(column)
    for row in rows:
        own = (f"{row['ratio']:.2f}", f"{row['scores_apart']:.1e}") if "ratio" in row else ("", "")
        table.add_row(row["work"], row["dtype"], row["side"], str(row["pairs"]), f"{row['pairs_per_second']:.2f}", *own)
    Console(width=110).print(table)


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs="+", choices=("one", "varied", "shared"), default=["one", "shared"])
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--layers", type=int, default=4, help="of each side")
    parser.add_argument("--passages", type=int, default=50, help="of a question")
    parser.add_argument("--passage-tokens", type=int, default=150, help="of `varied`, half to one and a half of them")
    parser.add_argument("--question-tokens", type=int, default=20)
    parser.add_argument("--questions", type=int, default=4, help="of the work `shared`")
    parser.add_argument("--pool", type=int, default=80, help="passages that those questions share")
    parser.add_argument("--torch-batch", type=int, default=16, help="pairs of a batch of the PyTorch side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, help="cores for each side (Linux)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args()
    if given.worker:
        work(*json.loads(given.worker))
        return
    common = {name: getattr(given, name) for name in ("passage_tokens", "question_tokens", "torch_batch", "cores")}
    common["passages"] = given.passages
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_weights(folder, given.layers)
        for dtype in given.dtype:
            for name in given.work:
                shared = name == "shared"
                asked = {
                    "questions": given.questions if shared else 1,
                    "pool": given.pool if shared else given.passages,
                }
                settings = common | asked | {"name": name, "dtype": dtype, "vary": name == "varied"}
                each = {side: [side, folder, settings] for side in SIDES}
                rows += summary(settings, workers.take_turns(__file__, each, given.repeats, given.seed))
                show(rows[-2:])
    records.write(given, {"results": rows})


if __name__ == "__main__":
    main()
