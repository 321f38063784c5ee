# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The sharding table's errors; and that eight devices compute what one does."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from class_jax.distributed import sharding
from class_jax.errors import InputError
from class_jax.models import ModelConfig

# Largest difference over largest value of an array.
TOLERANCE = 1e-5

CONFIG = dict(
    vocab_size=32,
    d_model=16,
    d_kv=4,
    d_ff=16,
    num_layers=2,
    num_decoder_layers=1,
    num_heads=2,
    retriever_head=1,
)

# Two training steps on each mesh; every array is written under "objective/mesh/...". Dropout is on: its masks may not
# depend on the mesh. The gradients of the first step are kept by a transformation that changes nothing.
SCRIPT = f"""
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from class_jax.models import ModelConfig, create, split
from class_jax.training import optimizer, step
from class_jax.distributed import sharding
from class_jax.objectives.batch import Batch
from class_jax.objectives.objectives import ObjectiveConfig

B, N, Q, P, A = 16, 2, 3, 5, 2
config = ModelConfig(**{CONFIG!r}, dropout_rate=0.1)
# A large epsilon: Adam's first steps are signs otherwise, and the sign of a gradient near 0 is chance.
adamw = optimizer.make_optimizer(optimizer.OptimizerConfig(total_steps=10, learning_rate=0.1, eps=1e-2))
kept = optax.chain(optax.trace(decay=0.0), adamw)

def make_batch(objective):
    rng = np.random.default_rng(0)
    rows = 2 * B if objective == "stage1" else B
    def texts(name, shape, size):
        return {{f"{{name}}_ids": rng.integers(2, 32, (*shape, size)), f"{{name}}_lengths": rng.integers(1, size + 1, shape)}}
    batch = texts("question", (rows,), Q) | texts("passage", (B, N), P) | texts("answer", (rows,), A)
    if objective == "stage1":
        batch["teacher_scores"] = rng.normal(size=(B, B * N)).astype(np.float32)
        batch["teacher_attention"] = rng.dirichlet(np.ones(N), B).astype(np.float32)
    return Batch(**batch)

params = jax.device_get(jax.jit(lambda: split(create(config))[1])())
results = {{}}
for shape in [tuple(map(int, mesh.split("x"))) for mesh in sys.argv[2:]]:
    mesh = sharding.make_mesh(sharding.MeshConfig(*shape), jax.devices()[:np.prod(shape)])
    for objective in ("end_to_end", "stage1"):
        pieces = ObjectiveConfig(micro_batches=2 if objective == "end_to_end" else 1)
        train = step.make_train_step(config, objective, pieces, kept, mesh)
        state = step.init_state(config, kept, mesh, params=params)
        prefix = f"{{objective}}/{{'x'.join(map(str, shape))}}"
        if objective == "stage1":
            shard = state.params["head"]["kernel"].addressable_shards[0].data.shape
            results[f"shard/{{'x'.join(map(str, shape))}}"] = np.array(shard)
        def keep(name, tree):
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                results[f"{{prefix}}/{{name}}{{jax.tree_util.keystr(path)}}"] = np.asarray(leaf)
        state, metrics = train(state, make_batch(objective))
        keep("metrics", metrics)
        keep("gradients", state.optimizer[0].trace)
        state, metrics = train(state, make_batch(objective))
        keep("metrics of step 2", metrics)
        keep("params", state.params)
np.savez(sys.argv[1], **results)
"""


# What one device sends in a compiled step of two micro-batches, in bytes, by objective and kind of collective; and the
# bytes of what must be summed over the devices. Nothing is run.
TRAFFIC_SCRIPT = f"""
import json, math, sys
import jax, jax.numpy as jnp
from class_jax.models import ModelConfig, param_shapes
from class_jax.planning.collectives import collectives
from class_jax.models.packing import Slots
from class_jax.training import optimizer, step
from class_jax.distributed import sharding
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.objectives.batch import Batch, TokenSlots

B, N, Q, P, A = 16, 8, 8, 56, 4
config = ModelConfig(**{CONFIG!r}, dropout_rate=0.0)
mesh = sharding.make_mesh(sharding.MeshConfig(1, 8, 1))
adamw = optimizer.make_optimizer(optimizer.OptimizerConfig(total_steps=10))
cut = sharding.batch_sharding(mesh)

def shapes(name, leading, size):
    sizes = {{f"{{name}}_ids": (*leading, size), f"{{name}}_lengths": leading}}
    return {{name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=cut) for name, shape in sizes.items()}}

# Of the relative positions' biases, too, a gradient is summed over the batch.
biases = config.num_heads * (Q * Q + P * P + (Q + P) ** 2 + A * A)
parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(param_shapes(config)))
found = {{"summed": 4 * (parameters + biases), "vectors": 4 * config.d_kv * (B * N * P + 2 * B * Q)}}
for case in ("end_to_end", "stage1", "end_to_end packed"):
    objective = case.split()[0]
    rows = 2 * B if objective == "stage1" else B
    batch = shapes("question", (rows,), Q) | shapes("passage", (B, N), P) | shapes("answer", (rows,), A)
    if case != objective:
        batch["token_slots"] = TokenSlots(Slots(8, N * P // 2), Slots(8, N * (Q + P) // 2), 2)
    teacher = ()
    if objective == "stage1":
        batch |= shapes("teacher_question", (B,), Q) | shapes("teacher_passage", (B, N), P)
        place = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        teacher = (jax.tree.map(place, param_shapes(config), sharding.param_shardings(config, mesh)),)
    pieces = ObjectiveConfig(micro_batches=2)
    train = step.make_train_step(config, objective, pieces, adamw, mesh, teacher=config if teacher else None)
    with jax.set_mesh(mesh):
        compiled = train.lower(step.state_shapes(config, adamw, mesh), Batch(**batch), *teacher).compile()
    found[case] = {{kind: one.moved_bytes for kind, one in collectives(compiled.as_text()).items()}}
json.dump(found, open(sys.argv[1], "w"))
"""


def on_eight_devices(script, *arguments):
    # Compiling takes most of the time here, and less of it without optimisations.
    flags = "--xla_backend_optimization_level=0"
    flags += " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def run(folder, *meshes):
    file = folder / "results.npz"
    on_eight_devices(SCRIPT, file, *meshes)
    return dict(np.load(file))


def assert_same_on(results, mesh):
    """Every result on the mesh is that of one device."""
    for objective in ("end_to_end", "stage1"):
        prefix = f"{objective}/1x1x1/"
        expected = {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}
        assert {key.split("[")[0] for key in expected} == {"metrics", "gradients", "metrics of step 2", "params"}
        for key, value in expected.items():
            actual = results[f"{objective}/{mesh}/{key}"]
            difference = np.abs(actual - value).max() / np.abs(value).max()
            assert difference < TOLERANCE, f"{objective}: {key} differs by {difference:.1e}"


def shards(results):
    return {key.removeprefix("shard/"): tuple(value) for key, value in results.items() if key.startswith("shard/")}


D, V = CONFIG["d_model"], CONFIG["vocab_size"]


def test_eight_devices_compute_what_one_does(tmp_path):
    results = run(tmp_path, "1x1x1", "2x2x2")
    assert shards(results) == {"1x1x1": (D, V), "2x2x2": (D // 2, V // 2)}
    assert_same_on(results, "2x2x2")


@pytest.mark.slow
def test_other_meshes_compute_the_same(tmp_path):
    results = run(tmp_path, "1x1x1", "8x1x1", "1x4x2")
    assert shards(results) == {"1x1x1": (D, V), "8x1x1": (D, V), "1x4x2": (D // 4, V // 2)}
    assert_same_on(results, "8x1x1")
    assert_same_on(results, "1x4x2")


def test_devices_that_share_a_batch_exchange_gradients_and_no_activations(tmp_path):
    on_eight_devices(TRAFFIC_SCRIPT, tmp_path / "traffic.json")
    found = json.loads((tmp_path / "traffic.json").read_text())
    ring = 2 * 7 / 8  # what a device sends of each byte that eight of them sum
    gradients = 2 * ring * found["summed"]  # in each micro-batch
    assert gradients / 2 < found["end_to_end"]["all-reduce"] < 1.1 * gradients
    # Stage 1 compares the whole batch, so the gradient of the retrieval vectors is summed, too.
    assert found["stage1"]["all-reduce"] < 1.1 * (gradients + ring * found["vectors"])
    assert found["end_to_end packed"]["all-reduce"] < 1.1 * gradients
    for case in ("end_to_end", "stage1", "end_to_end packed"):
        others = sum(moved for kind, moved in found[case].items() if kind != "all-reduce")
        assert others < gradients  # parameters are gathered, in stage 1 vectors, and questions and answers move


def test_spec():
    assert sharding.spec(["batch", None]) == PartitionSpec(("data", "fsdp"), None)
    assert sharding.spec(["layers", "embed", "heads", "kv"]) == PartitionSpec(None, "fsdp", "tensor", None)


def test_unknown_logical_axis():
    with pytest.raises(InputError, match=r"embde: unknown logical axis; did you mean 'embed'\?"):
        sharding.spec(["embde"])


@pytest.mark.parametrize(("axes", "mesh_axis"), [(["heads", "mlp"], "tensor"), (["batch", "embed"], "fsdp")])
def test_two_dimensions_over_one_mesh_axis(axes, mesh_axis):
    with pytest.raises(InputError, match=rf"{axes[0]}.*{axes[1]}.*'{mesh_axis}'.*twice"):
        sharding.spec(axes)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (sharding.MeshConfig(3, 1, 1), "'data': 3.* 8 devices"),
        (sharding.MeshConfig(-1, 3, 1), "'fsdp': 3.* 8 devices"),
        (sharding.MeshConfig(2, 2, 1), "multiply to 8"),
        (sharding.MeshConfig(-1, -1, 1), "one axis may be -1"),
        (sharding.MeshConfig(0, 1, 1), "'data': 0"),
    ],
)
def test_mesh_that_does_not_fit_the_devices(config, named):
    with pytest.raises(InputError, match=named):
        sharding.make_mesh(config, jax.devices()[:1] * 8)


@pytest.mark.parametrize(
    ("change", "mesh", "named"),
    [
        ({"vocab_size": 33}, (1, 4, 2), r"(embed/embedding|head/kernel): vocab = 33 .* 2"),
        ({"d_model": 18}, (1, 4, 2), "embed = 18 .* 4"),
        ({"num_heads": 3}, (1, 1, 2), "heads = 3 .* 2"),
    ],
)
def test_dimension_that_the_mesh_does_not_divide(change, mesh, named):
    with pytest.raises(InputError, match=named):
        sharding.param_shardings(ModelConfig(**CONFIG | change), AbstractMesh(mesh, sharding.MESH_AXES))
