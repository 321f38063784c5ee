# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Training steps, counted and timed, beside the layout of the public PyTorch code.

    python benchmarks/step.py --count --out count.json                    # FLOPs at the paper's shapes; any machine
    python benchmarks/step.py --time --cut 4 --torch --out cpu.json       # two CPU cores, beside plain PyTorch
    python benchmarks/step.py --time --size large --dtype bfloat16 --remat full --batch 64 --passages 100 \\
        --micro-batches 16 --peak-tflops 790 --out h200.json              # an accelerator
    python benchmarks/step.py --compiled --size tiny --batch 16 --mesh 1 8 1  # memory and collectives, CPU devices
    python benchmarks/step.py --compare before.json after.json
    python benchmarks/step.py --profile trace ...                         # a trace for TensorBoard or Perfetto

`--count` traces and allocates nothing. Its real lengths are those of batches that the feed forms of public data
(`--data`), tokenised with `--vocabulary` or, since mT5's can't be shipped, with a vocabulary trained on that
data. FLOPs are those of matrix products, forward and backward, without rematerialisation; the teacher's forward pass
is in both.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
from pathlib import Path

import records

OBJECTIVES = ("end_to_end", "stage1")
# How much of the reference's count or time a step may take at most.
COUNT_BARS = {
    ("end_to_end", "full"): 0.92,
    ("end_to_end", "real"): 0.68,
    ("stage1", "full"): 0.70,
    ("stage1", "real"): 0.50,
}


def models(given):
    """The model and its teacher, as the arguments ask for them."""
    import step_count

    from class_jax.planning.sizes import model_config

    config = model_config(given.size)
    changes = {"dtype": given.dtype, "remat": given.remat, "dropout_rate": given.dropout}
    teacher = {"dtype": given.dtype, "vocab_size": step_count.TEACHER.vocab_size, "dropout_rate": 0.0}
    if given.cut is not None:
        changes |= {"num_layers": given.cut, "num_decoder_layers": given.cut, "retriever_layer": None}
    config = dataclasses.replace(config, **changes)
    return config, dataclasses.replace(config, remat="none", **teacher)


def count(given):
    """Counts at full padding and on real lengths."""
    import step_count

    from class_jax.objectives.objectives import ObjectiveConfig
    from class_jax.training.token_slots import Packer

    config, teacher = models(given)
    losses = ObjectiveConfig(micro_batches=given.micro_batches)
    packer = None if given.padded else Packer(max(1, given.mesh[0]) * max(1, given.mesh[1]), given.micro_batches)
    rows = []
    for objective in given.objectives:
        full = [step_count.limits(objective, given.batch, given.passages)]
        found = step_count.compare(config, objective, full, teacher)
        rows.append({"objective": objective, "lengths": "full", **found})
        if given.data is None:
            continue
        feed = step_count.real_feed(
            given.data, given.work, objective, given.batch, given.passages, given.vocabulary, given.seed, packer
        )
        batches = [feed.batch(step) for step in range(given.batches)]
        fed = [step_count.fed_shapes(batch) for batch in batches]
        found = step_count.compare(config, objective, fed, teacher, losses)
        tokens = step_count.length_summary(batches)
        rows.append({"objective": objective, "lengths": "real", "tokens": tokens, **found})
    return {"count": rows}


def timing(given):
    """Times both objectives."""
    import step_time

    config, teacher = models(given)
    rows = []
    for objective in given.objectives:
        shape = run_shape(given, objective, config, teacher)
        sides = ["class_jax", "torch"] if given.torch else ["class_jax"]
        found = step_time.measure(config, teacher, shape, sides, given.repeats)
        peak = None if given.peak_tflops is None else given.peak_tflops * 1e12
        rows.append({"objective": objective, **step_time.summary(config, teacher, shape, found, peak)})
    return {"devices": records.devices(), "time": rows}


def compiled(given):
    """What the compiler says of both steps, on as many CPU devices as the mesh has."""
    devices = math.prod(given.mesh)
    if devices < 1:
        raise SystemExit("--compiled needs a whole --mesh, such as 1 8 1")
    # Before JAX is imported: it makes its devices then.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    import step_compiled

    config, teacher = models(given)
    rows = []
    for objective in given.objectives:
        shape = run_shape(given, objective, config, teacher)
        rows.append({"objective": objective, **step_compiled.report(config, teacher, shape)})
    return {"compiled": rows}


def run_shape(given, objective, config, teacher):
    """The settings of a step that a worker receives."""
    from class_jax.training.feed import bucket

    lengths = {"Q": given.question_tokens, "P": given.passage_tokens, "A": given.answer_tokens}
    buckets = {"Q": given.question_buckets, "P": given.passage_buckets, "A": given.answer_buckets}
    return {
        "objective": objective,
        "B": given.batch,
        "N": given.passages,
        **lengths,
        **{f"{name} bucket": bucket(size, buckets[name], f"--{name} bucket") for name, size in lengths.items()},
        "vocab_size": config.vocab_size,
        "teacher_vocab_size": teacher.vocab_size,
        "mesh": dict(zip(("data", "fsdp", "tensor"), given.mesh, strict=True)),
        "micro_batches": given.micro_batches,
        "score_chunk": given.score_chunk,
    }


def show_count(result):
    """Prints the counts."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="matrix PFLOPs of a step, forward and backward, without rematerialisation")
    for column in ("objective", "lengths", "ours", "reference", "ratio", "bar"):
        table.add_column(column, justify="right")
    for row in result["count"]:
        bar = COUNT_BARS[row["objective"], row["lengths"]]
        numbers = [f"{row['ours'] / 1e15:.4g}", f"{row['reference'] / 1e15:.4g}", f"{row['ratio']:.3f}", f"{bar:.2f}"]
        table.add_row(row["objective"], row["lengths"], *numbers)
    Console(width=110).print(table)


def show_time(result):
    """Prints the times."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="seconds of a training step, after compilation")
    for column in (
        "objective",
        "side",
        "median",
        "fastest",
        "slowest",
        "tokens/s",
        "MFU",
        "HFU",
        "ratio",
        "of processor time",
        "loss differs",
    ):
        table.add_column(column, justify="right")
    for row in result["time"]:
        for side, found in row["sides"].items():
            seconds = [f"{found[name]:.3f}" for name in ("seconds", "fastest", "slowest")]
            share = [f"{found[name]:.1%}" if name in found else "" for name in ("mfu", "hfu")]
            last = ("", "", "")
            if side == "class_jax" and "ratio" in row:
                last = f"{row['ratio']:.3f}", f"{row['processor_ratio']:.3f}", f"{row['loss_difference']:.0e}"
            table.add_row(row["objective"], side, *seconds, f"{found['tokens_per_second']:.0f}", *share, *last)
    Console(width=120).print(table)


def parser():
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--worker", help=argparse.SUPPRESS)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--count", action="store_true", help="count FLOPs beside the reference's layout")
    what.add_argument("--time", action="store_true", help="time steps")
    what.add_argument("--compiled", action="store_true", help="memory and collectives of a step on --mesh CPU devices")
    what.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="compare two files")
    what.add_argument("--profile", type=Path, metavar="FOLDER", help="write a trace of three steps there")
    made.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    made.add_argument("--size", help="file of gin/models (large to count, small to time)")
    made.add_argument("--cut", type=int, help="layers of encoder and of decoder, in place of the size's")
    made.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    made.add_argument("--remat", default="none", choices=("none", "dots", "full"))
    made.add_argument("--dropout", type=float, default=0.0)
    made.add_argument("--batch", type=int, help="questions (stage 1: pairs); 64 to count, 4 to time")
    made.add_argument("--passages", type=int, help="of a question; 100 to count, 8 to time")
    made.add_argument("--question-tokens", type=int, default=16)
    made.add_argument("--passage-tokens", type=int, default=150)
    made.add_argument("--answer-tokens", type=int, default=8)
    made.add_argument("--question-buckets", type=int, nargs="+", default=[16, 32, 50])
    made.add_argument("--passage-buckets", type=int, nargs="+", default=[64, 128, 200])
    made.add_argument("--answer-buckets", type=int, nargs="+", default=[8, 16, 24, 32, 40, 50])
    made.add_argument("--mesh", type=int, nargs=3, default=[-1, 1, 1], metavar=("DATA", "FSDP", "TENSOR"))
    made.add_argument("--micro-batches", type=int, default=1)
    made.add_argument("--score-chunk", type=int)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument(
        "--torch", action="store_true", help="time the reference's layout in PyTorch, too (the torch extra)"
    )
    made.add_argument("--peak-tflops", type=float, help="of all devices together; then MFU and HFU are printed")
    made.add_argument("--data", type=Path, help="folder of public data; without it real lengths are not counted")
    made.add_argument("--work", type=Path, default=Path("runs/step_benchmark"), help="where that data is prepared")
    made.add_argument("--vocabulary", help="SentencePiece model for the lengths, by path or hub id")
    made.add_argument("--padded", action="store_true", help="count real lengths without packing")
    made.add_argument("--batches", type=int, default=10, help="batches of the feed to count")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, help="JSON to write")
    return made


def main():
    """Counts or times, prints and writes; returns the exit status."""
    asked = parser()
    given = asked.parse_args()
    if given.worker:
        import step_time

        step_time.work(*json.loads(given.worker))
        return 0
    if not (given.compare or given.count or given.time or given.compiled or given.profile):
        asked.error("one of --count, --time, --compiled, --compare, --profile")
    return records.exit_status(lambda: run(given))


def run(given):
    """Does what the arguments ask for."""
    if given.compare:
        records.compare(*given.compare)
        return
    defaults = {"size": "small", "batch": 4, "passages": 8}
    if given.count:
        defaults = {"size": "large", "batch": 64, "passages": 100}
    for name, value in defaults.items():
        setattr(given, name, value if getattr(given, name) is None else getattr(given, name))
    if given.profile:
        import step_time

        config, teacher = models(given)
        shape = run_shape(given, given.objectives[0], config, teacher)
        print(step_time.profile(config, teacher, shape, given.profile))
        return
    if given.compiled:
        result = compiled(given)
        print(json.dumps(result["compiled"], indent=1))
    else:
        result = count(given) if given.count else timing(given)
        (show_count if given.count else show_time)(result)
    records.write(given, result)


if __name__ == "__main__":
    sys.exit(main())
