# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Times training steps: ours on any device, and on a CPU beside the reference's layout in PyTorch.

Each side runs in a process of its own, and they take turns within each repetition, so that whatever else the machine
does strikes both. The learning rate is 0: the work is the same, and every step's loss can be compared.
"""

import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np
import records
import workers

ROW = 250  # tokens of the reference's joint rows


def random_params(config, seed):
    """Random parameters that both sides can make alike; made in place, since a vocabulary's arrays are large."""
    import jax

    from class_jax.models import param_shapes

    rng = np.random.default_rng(seed)

    def leaf(path, like):
        if "scale" in jax.tree_util.keystr(path):
            return np.ones(like.shape, np.float32)
        made = rng.standard_normal(like.shape, np.float32)
        made *= 0.05
        return made

    return jax.tree_util.tree_map_with_path(leaf, param_shapes(config))


def random_batch(shape, seed):
    """A batch as the feed makes it: real tokens as `shape` says, padded to its buckets.

    Args:
      shape: B, N; Q, P, A (tokens), "Q bucket", "P bucket", "A bucket" (padded lengths); objective; vocab_size and
        teacher_vocab_size.
      seed: of the tokens.
    """
    from class_jax.objectives.batch import Batch

    rng = np.random.default_rng(seed)
    B, N = shape["B"], shape["N"]
    stage1 = shape["objective"] == "stage1"

    def side(name, letter, size, *leading):
        ids = np.zeros((*leading, shape[f"{letter} bucket"]), np.int32)
        ids[..., : shape[letter]] = rng.integers(10, size - 10, (*leading, shape[letter]))
        return {f"{name}_ids": ids, f"{name}_lengths": np.full(leading, shape[letter], np.int32)}

    readings, size = (2 * B if stage1 else B), shape["vocab_size"]
    batch = side("question", "Q", size, readings) | side("passage", "P", size, B, N)
    if stage1:
        size = shape["teacher_vocab_size"]
        batch |= side("teacher_question", "Q", size, B) | side("teacher_passage", "P", size, B, N)
        answers = side("answer", "A", shape["vocab_size"], B)
        return Batch(**batch, **{name: np.concatenate([x, x]) for name, x in answers.items()})
    return Batch(**batch, **side("answer", "A", shape["vocab_size"], B))


@contextlib.contextmanager
def stopwatch():
    """Yields a list that holds, after the block, the seconds that passed and those of processors that were used.

    The second suffers less from what else the machine does.
    """
    taken, begun = [], (time.perf_counter(), time.process_time())
    yield taken
    taken += [time.perf_counter() - begun[0], time.process_time() - begun[1]]


def jax_side(config, teacher, shape):
    """Our step, on whatever device JAX has: a function of a seed that returns (seconds, loss, processor seconds)."""
    import jax

    from class_jax.distributed.sharding import MeshConfig, make_mesh, param_shardings
    from class_jax.objectives.objectives import ObjectiveConfig
    from class_jax.training.optimizer import OptimizerConfig, make_optimizer
    from class_jax.training.step import init_state, make_train_step

    mesh = make_mesh(MeshConfig(**shape["mesh"]))
    optimizer = make_optimizer(OptimizerConfig(total_steps=1000, learning_rate=0.0))
    taught = shape["objective"] == "stage1"
    losses = ObjectiveConfig(micro_batches=shape["micro_batches"], score_chunk=shape["score_chunk"])
    step = make_train_step(config, shape["objective"], losses, optimizer, mesh, teacher=teacher if taught else None)
    state = init_state(config, optimizer, mesh, params=random_params(config, 1))
    others = ()
    if taught:
        matrices = jax.tree.map(lambda x: x.astype(teacher.dtype), random_params(teacher, 2))
        others = (jax.device_put(matrices, param_shardings(teacher, mesh)),)
    kept = {"state": state}

    def run(seed):
        batch = random_batch(shape, seed)
        with stopwatch() as taken:
            kept["state"], metrics = step(kept["state"], batch, *others)
            loss = float(metrics["loss"])
        return taken[0], loss, taken[1]

    return run


def torch_side(config, teacher, shape):
    """The reference's layout; the same function."""
    import torch_reference

    taught = shape["objective"] == "stage1"
    others = (teacher, random_params(teacher, 2)) if taught else (None, None)
    prepare, step = torch_reference.make_step(config, random_params(config, 1), ROW, 0.0, *others)

    def run(seed):
        tensors = prepare(random_batch(shape, seed))
        with stopwatch() as taken:
            loss = step(tensors)
        return taken[0], loss, taken[1]

    return run


SIDES = {"class_jax": jax_side, "torch": torch_side}


def work(side, config, teacher, shape):
    """A worker, see `workers`."""
    from class_jax.models import ModelConfig

    workers.serve(SIDES[side](ModelConfig(**config), ModelConfig(**teacher), shape))


def measure(config, teacher, shape, sides, repeats):
    """Runs the sides in turn; returns for each what every repetition but the first two gave."""
    settings = [dataclasses.asdict(config), dataclasses.asdict(teacher), shape]
    script = Path(__file__).with_name("step.py")
    # The second step is slow, too: it is the first that touches all of its memory.
    found = workers.take_turns(script, {side: [side, *settings] for side in sides}, repeats + 1, 0)
    return {side: runs[1:] for side, runs in found.items()}


def profile(config, teacher, shape, folder):
    """Writes a trace of three steps after compilation, for TensorBoard or Perfetto; returns its path."""
    import jax

    from class_jax.training import profiling

    run = jax_side(config, teacher, shape)
    run(0)
    profiling.start(folder)
    for seed in range(3):
        with jax.profiler.StepTraceAnnotation("train", step_num=seed):
            run(seed)
    jax.profiler.stop_trace()
    return profiling.traces(folder)[-1]


def summary(config, teacher, shape, found, peak):
    """What was measured, as one mapping a side: medians, spread, tokens a second, MFU and HFU where the peak is known.

    Args:
      config, teacher, shape: what ran.
      found: of `measure`.
      peak: FLOP/s of all devices together, or None.
    """
    from step_count import batch_shapes, count_ours

    from class_jax.objectives.objectives import ObjectiveConfig

    lengths = {letter: shape[f"{letter} bucket"] for letter in "QPA"}
    shapes = batch_shapes(shape["objective"], shape["B"], shape["N"], lengths=lengths)
    losses = ObjectiveConfig(micro_batches=shape["micro_batches"], score_chunk=shape["score_chunk"])
    flops = count_ours(config, shape["objective"], shapes, losses, teacher)
    readings = shape["B"] * (2 if shape["objective"] == "stage1" else 1)
    tokens = readings * (shape["Q"] + shape["A"]) + shape["B"] * shape["N"] * shape["P"]
    rows = {}
    for side, runs in found.items():
        taken = records.spread([one[0] for one in runs])
        processor = records.spread([one[2] for one in runs])["seconds"]
        rows[side] = {
            **taken,
            "processor_seconds": processor,
            "tokens_per_second": tokens / taken["seconds"],
            "losses": [one[1] for one in runs],
        }
    ours = rows["class_jax"]
    ours |= {"model_flops": flops.model, "hardware_flops": flops.hardware}
    ours |= records.utilisation(flops, ours["seconds"], peak)
    result = {"shape": shape, "sides": rows}
    if "torch" in rows:
        other = rows["torch"]
        result["ratio"] = ours["seconds"] / other["seconds"]
        result["processor_ratio"] = ours["processor_seconds"] / other["processor_seconds"]
        pairs = zip(ours["losses"], other["losses"], strict=True)
        result["loss_difference"] = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
    return result
