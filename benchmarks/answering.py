# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions per second and peak memory of answering, beside transformers' MT5 with the same weights.

    python benchmarks/answering.py --sizes small --passages 5 20 100 --out answering.json

Both sides read the same question and passage tokens and generate the same number of answer tokens (the weights are
random, so no answer ends early; that is checked). transformers' side is what one would write with its MT5: the whole
encoder over the joint rows (question, passage), their outputs concatenated and given to `generate`, which keeps its own
cache. It does not split its encoder, so its answers are not CLASS's; the work is that of the same layers.

Each side runs in a process of its own, so that peak memory is its own; the two take turns within each repetition, so
that whatever else the machine does strikes both; on a busy machine PyTorch's threads wait for each other far more than
XLA's do, and `--cores 1` compares only the work. Times are medians. Peak memory is the process's above what it was
once the weights were loaded, so it holds what answering takes, compiled programs included.
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


def batch_tokens(shape, seed):
    """Questions [B, Q] and passages [B, N, P] of random tokens, none of them special."""
    rng = np.random.default_rng(seed)
    B, N, Q, P = (shape[name] for name in "BNQP")
    high = shape["vocab_size"] - 1000
    return rng.integers(10, high, (B, Q)).astype(np.int32), rng.integers(10, high, (B, N, P)).astype(np.int32)


def memory_status(key):
    """A line of /proc/self/status in MiB, or None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def jax_side(folder, shape):
    """Returns a function of a seed that answers one batch: seconds of reading, of decoding, and tokens generated."""
    import jax

    from class_jax.checkpoints.pretrained import load_pretrained
    from class_jax.models import inference
    from class_jax.models.answering import PASSAGE_BUCKETS, QUESTION_BUCKETS

    config, params, *_ = load_pretrained(folder)
    params = jax.device_put(params)
    read, decode = inference.reader(config), inference.decoder(config, shape["A"], shape["beams"])
    Q, P = inference.bucket_of(shape["Q"], QUESTION_BUCKETS), inference.bucket_of(shape["P"], PASSAGE_BUCKETS)

    def run(seed):
        questions, passages = batch_tokens(shape, seed)
        B, N, p = passages.shape
        batch = (*inference.pad_rows(questions, Q), *inference.pad_rows(passages.reshape(B * N, p), P))
        batch = (*batch[:2], batch[2].reshape(B, N, P), batch[3].reshape(B, N))
        begun = time.perf_counter()
        memory = jax.block_until_ready(read(params, *batch))
        middle = time.perf_counter()
        answers = jax.block_until_ready(decode(params, memory))
        return middle - begun, time.perf_counter() - middle, np.asarray(answers.lengths).tolist()

    return run


def torch_side(folder, shape):
    """The same for transformers' MT5."""
    import torch
    from safetensors.torch import load_file
    from transformers import MT5Config, MT5ForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    settings = json.loads((Path(folder) / "config.json").read_text())
    names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
    config = MT5Config(**{name: settings[name] for name in names})
    config.tie_word_embeddings = False  # mT5's head is its own; the constructor takes no such argument
    with torch.device("meta"):
        model = MT5ForConditionalGeneration(config)
    tensors = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        tensors |= load_file(file)
    tensors |= {f"{stack}.embed_tokens.weight": tensors["shared.weight"] for stack in ("encoder", "decoder")}
    model.load_state_dict(tensors, assign=True)
    model.eval()

    @torch.inference_mode()
    def run(seed):
        questions, passages = batch_tokens(shape, seed)
        B, N, _ = passages.shape
        rows = np.concatenate([np.broadcast_to(questions[:, None], (B, N, shape["Q"])), passages], axis=-1)
        rows = torch.from_numpy(rows.reshape(B * N, -1)).long()
        begun = time.perf_counter()
        states = model.encoder(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state
        middle = time.perf_counter()
        found = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.reshape(B, -1, states.shape[-1])),
            attention_mask=torch.ones(B, rows.numel() // B, dtype=torch.long),
            max_new_tokens=shape["A"],
            num_beams=shape["beams"],
            do_sample=False,
        )
        return middle - begun, time.perf_counter() - middle, [found.shape[1] - 1] * B

    return run


SIDES = {"class_jax": jax_side, "transformers": torch_side}


def work(side, folder, shape):
    """A worker's whole life; see `workers.serve`."""
    workers.pin(shape["cores"])
    run = SIDES[side](folder, shape)
    loaded = memory_status("VmRSS")

    def measured(seed):
        read, decode, lengths = run(seed)
        if lengths != [shape["A"]] * shape["B"]:
            raise RuntimeError(f"{side} generated {lengths} tokens, not {shape['A']} each: choose another --seed")
        peak = memory_status("VmHWM")
        return {"read": read, "decode": decode, "peak_mib": None if peak is None else peak - loaded}

    workers.serve(measured)


def write_weights(size, folder):
    """Random weights of a size, as a model's folder; returns the configuration."""
    import jax

    from class_jax.checkpoints.pretrained import save_pretrained
    from class_jax.models import param_shapes
    from class_jax.planning.sizes import model_config

    config, rng = model_config(size), np.random.default_rng(0)

    def leaf(path, like):
        if "scale" in jax.tree_util.keystr(path):
            return np.ones(like.shape, np.float32)
        return 0.05 * rng.standard_normal(like.shape, np.float32)

    save_pretrained(folder, jax.tree_util.tree_map_with_path(leaf, param_shapes(config)), config)
    return config


def summary(shape, side, runs):
    """One row of the table."""
    seconds = {name: statistics.median(run[name] for run in runs) for name in ("read", "decode")}
    total = statistics.median(run["read"] + run["decode"] for run in runs)
    peaks = [run["peak_mib"] for run in runs if run["peak_mib"] is not None]
    return {
        "side": side,
        "passages": shape["N"],
        "questions_per_second": shape["B"] / total,
        "read_seconds": seconds["read"] / shape["B"],
        "decode_seconds": seconds["decode"] / shape["B"],
        "peak_mib": max(peaks, default=None),
        "runs": runs,
    }


def has_torch():
    """Whether the other side can run."""
    import importlib.util

    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def show(rows):
    """Prints the table: for each size and number of passages both sides, and how much faster ours is."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="answering: medians; seconds are per question")
    for column in ("size", "passages", "", "questions/s", "read s", "decode s", "peak MiB", "times as fast"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        numbers = [f"{row[name]:.3f}" for name in ("questions_per_second", "read_seconds", "decode_seconds")]
        ratio = "" if row.get("ratio") is None else f"{row['ratio']:.2f}"
        table.add_row(row["size"], str(row["passages"]), row["side"], *numbers, peak, ratio)
    Console(width=110).print(table)


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", nargs="+", default=["small"], help="files of gin/models")
    parser.add_argument("--passages", nargs="+", type=int, default=[5, 20, 100])
    parser.add_argument("--passage-tokens", type=int, default=150)
    parser.add_argument("--question-tokens", type=int, default=20)
    parser.add_argument("--answer-tokens", type=int, default=10)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="questions at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, help="cores for each side (Linux); on a busy machine one is fairest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args()
    if given.worker:
        work(*json.loads(given.worker))
        return
    sides = [side for side in SIDES if side == "class_jax" or has_torch()]
    rows = []
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            config = write_weights(size, Path(folder) / "model")
            for N in given.passages:
                lengths = {"Q": given.question_tokens, "P": given.passage_tokens, "A": given.answer_tokens}
                shape = {"B": given.batch, "N": N, **lengths, "beams": given.beams, "vocab_size": config.vocab_size}
                shape["cores"] = given.cores
                each = {side: [side, str(Path(folder) / "model"), shape] for side in sides}
                found = workers.take_turns(__file__, each, given.repeats, given.seed)
                made = [{"size": size, **summary(shape, side, runs)} for side, runs in found.items()]
                if len(made) == 2:
                    made[0]["ratio"] = made[0]["questions_per_second"] / made[1]["questions_per_second"]
                rows += made
    show(rows)
    records.write(given, {"results": rows})


if __name__ == "__main__":
    main()
