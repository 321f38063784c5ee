# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The plan: memory, traffic and time, exactly and against compiled steps, and its command."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.plan import plan
from class_jax.distributed import sharding
from class_jax.errors import InputError
from class_jax.models import ModelConfig, param_shapes
from class_jax.objectives.batch import Batch
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.planning.chips import CHIPS
from class_jax.planning.collectives import collectives
from class_jax.planning.memory import (
    Shape,
    check_mesh,
    compiled_memory,
    parameters_per_device,
    residual_bytes,
    residuals_per_question,
    step_memory,
)
from class_jax.planning.plan import Machine, choose, make_plan
from class_jax.planning.roofline import Assumptions, link_bytes, step_flops, step_time
from class_jax.planning.sizes import model_config
from class_jax.training import step
from class_jax.training.optimizer import OptimizerConfig, make_optimizer

CONFIG = ModelConfig(64, 16, 8, 32, 4, 2, 2, retriever_head=1, dropout_rate=0.0)
SMALL = Shape("end_to_end", batch=8, passages=3, question_tokens=8, passage_tokens=16, answer_tokens=4)
ONE = {"data": 1, "fsdp": 1, "tensor": 1}

HLO = """\
HloModule step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %gathered = bf16[32,8]{1,0} all-gather(%x), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %out = (s32[], f32[4,8]) tuple(%i, %y)
}

ENTRY %main (p0: f32[4,8]) -> f32[] {
  %loop = (s32[], f32[4,8]) while(%init), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"5"}}
  %summed = f32[10]{0} all-reduce(%g), replica_groups={{0,1},{2,3}}, to_apply=%add
  %scattered = f32[10]{0} reduce-scatter(%g), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  %begun = (f32[6]{0}, f32[6]{0}) collective-permute-start(%g), source_target_pairs={{0,1},{1,0}}
  %ended = f32[6]{0} collective-permute-done(%begun)
  ROOT %zero = f32[] constant(0)
}
"""


def test_collectives_are_counted_as_often_as_loops_run():
    found = {kind: dataclasses.astuple(one) for kind, one in collectives(HLO).items()}
    assert found == {
        "all-gather": (5, 5 * 512, 5 * 448),  # 7 of 8 parts come from others
        "all-reduce": (1, 40, 40),  # two devices: a half there and a half back
        "reduce-scatter": (1, 40, 120),
        "collective-permute": (1, 24, 24),
    }


def test_collectives_of_a_compiled_program():
    """On eight CPU devices: a scan of products whose kernels are cut gathers every kernel in every turn."""
    code = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from class_jax.planning.collectives import collectives
mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
kernels = jax.ShapeDtypeStruct((5, 16, 16), jnp.float32, sharding=NamedSharding(mesh, P(None, "x")))
x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("x")))
def chain(x, kernels):
    def body(x, kernel):
        kernel = jax.lax.with_sharding_constraint(kernel, NamedSharding(mesh, P()))
        return jnp.tanh(x @ kernel), None
    return jax.lax.scan(body, x, kernels)[0]
found = collectives(jax.jit(chain).lower(x, kernels).compile().as_text())
print(sum(one.moved_bytes for one in found.values()), *found)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **flags}, cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(5 * 16 * 16 * 4 * 7 // 8), "all-gather"]


def test_parameters_of_a_device():
    total = sum(leaf.size for leaf in jax.tree.leaves(param_shapes(CONFIG)))
    assert parameters_per_device(CONFIG, ONE) == total
    biases = 2 * 32 * 2  # relative positions are cut only over heads
    assert parameters_per_device(CONFIG, {**ONE, "fsdp": 4}) == (total - biases) // 4 + biases
    with pytest.raises(InputError, match=r"^\S+: embed = 16 "):
        parameters_per_device(CONFIG, {**ONE, "fsdp": 3})


def test_parameters_are_counted_exactly():
    """Of CONFIG: 8 attentions of 4 kernels, 6 MLPs of 3, a norm before each, 2 at the ends, 2 biases, 2 embeddings."""
    count = 8 * 4 * 16 * 16 + 6 * 3 * 16 * 32 + 14 * 16 + 2 * 16 + 2 * 32 * 2 + 2 * 64 * 16
    assert parameters_per_device(CONFIG, ONE) == count == 19_840


def test_memory_of_a_step_is_counted_exactly():
    """What backward passes keep is given here; each part of the sum is checked to the byte."""
    residuals = {"none": {"encode": 1000, "read": 3000}, "dots": {"encode": 400, "read": 700}}
    whole = step_memory(CONFIG, SMALL, ONE, 1, "none", residuals)
    # 8 questions with 3 passages of 16 tokens: states [16] and vectors [8], float32, and their gradient.
    kept = 2 * 8 * 3 * 16 * 4 * (16 + 8)
    expected = {"parameters": 79_360, "moments": 158_720, "gradients": 79_360, "teacher": 0, "kept": kept}
    assert dataclasses.asdict(whole) == expected | {"activations": 8 * 4000}
    assert whole.total == 79_360 + 158_720 + 79_360 + kept + 32_000
    # In pieces of 2 questions, the larger part counts; with remat, one of 2 layers (reading: of 4) is added.
    cut = step_memory(CONFIG, SMALL, ONE, 4, "dots", residuals)
    assert dataclasses.asdict(cut) == expected | {"activations": 2 * max(400 + 1000 // 2, 700 + 3000 // 4)}
    shared = step_memory(CONFIG, SMALL, {"data": 2, "fsdp": 2, "tensor": 2}, 1, "none", residuals, teacher=CONFIG)
    held = parameters_per_device(CONFIG, {"data": 2, "fsdp": 2, "tensor": 2})
    assert dataclasses.astuple(shared) == (4 * held, 8 * held, 4 * held, 4 * held, kept // 4, 2 * 4000 // 2)


def test_residuals_of_a_product():
    def function(x, kernel):
        return jnp.sin(x @ kernel)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 5), (5, 7))]
    assert residual_bytes(function, *shapes) == 4 * 3 * 7  # the cosine; the arguments are there anyway


def compiled_step(config):
    """Compiled memory of an end-to-end step of 8 questions on one device, and the bytes of its batch."""
    mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(total_steps=10))
    compiled = step.make_train_step(config, "end_to_end", ObjectiveConfig(), optimizer, mesh)
    integers = lambda *size: jax.ShapeDtypeStruct(size, jnp.int32)  # noqa: E731
    batch = Batch(integers(8, 8), integers(8), integers(8, 8, 64), integers(8, 8), integers(8, 4), integers(8))
    with jax.set_mesh(mesh):
        measured = compiled_memory(compiled.lower(step.state_shapes(config, optimizer, mesh), batch).compile())
    return measured, sum(x.size * 4 for x in jax.tree.leaves(batch))


def test_planned_memory_is_near_what_the_compiler_takes():
    """Parameters and moments exactly; what the compiler adds for the gradients and the activations within a factor."""
    shape = dataclasses.replace(SMALL, passages=8, passage_tokens=64)
    measured, inputs = compiled_step(CONFIG)
    planned = step_memory(CONFIG, shape, ONE, 1, "none", residuals_per_question(CONFIG, shape))
    assert measured["argument_size"] - inputs == pytest.approx(planned.parameters + planned.moments, rel=0.02)
    temporary = planned.gradients + planned.kept + planned.activations
    assert 0.5 < temporary / measured["temp_size"] < 2


def test_zeros_for_the_embeddings_gradient_are_not_there_from_the_start(monkeypatch):
    config = dataclasses.replace(CONFIG, vocab_size=60_000)
    ours = compiled_step(config)[0]["temp_size"]
    monkeypatch.setattr(step, "SINGLE_CPU_OPTIONS", None)
    assert ours + 4 * config.vocab_size * config.d_model < compiled_step(config)[0]["temp_size"]


def test_memory_falls_with_micro_batches_and_remat():
    residuals = residuals_per_question(CONFIG, SMALL)
    sizes = [step_memory(CONFIG, SMALL, ONE, pieces, "none", residuals).activations for pieces in (1, 2, 4)]
    assert sizes[0] > sizes[1] == 2 * sizes[2]
    policies = [residuals[remat]["read"] for remat in ("none", "dots", "full")]
    assert policies[0] > policies[1] > policies[2]


def test_bytes_over_links():
    held = sum(leaf.size for leaf in jax.tree.leaves(param_shapes(CONFIG)))
    assert link_bytes(CONFIG, SMALL, ONE, 1) == 0
    assert link_bytes(CONFIG, SMALL, {**ONE, "data": 4}, 1) == 2 * 3 / 4 * held * 4
    cut = {**ONE, "fsdp": 2}
    part = parameters_per_device(CONFIG, cut)
    assert link_bytes(CONFIG, SMALL, cut, 4) == 4 * (1 / 2) * 2 * part * (2 * 4 + 4)


def test_step_time_is_the_slowest_bound():
    chip = dataclasses.replace(CHIPS["h200"], tflops=1.0, hbm_gbps=1.0, link_gbps=1.0)
    found = step_time(8e12, 5e9, 3e9, chip, 2, Assumptions(efficiency=0.5, links=0.5))
    assert (found.compute, found.hbm, found.links) == (8.0, 3.0, 10.0)
    assert (found.seconds, found.limit) == (10.0, "links")


def test_chooses_the_fastest_that_fits():
    flops = {
        remat: step_flops(dataclasses.replace(CONFIG, remat=remat), SMALL, False, None) for remat in ("none", "full")
    }
    assert flops["full"].hardware > flops["none"].hardware
    slow = dataclasses.replace(CHIPS["h200"], tflops=1e-3)  # so that products are what limits so small a step
    roomy = Machine(slow, 2, 4.0, micro_batches=1)
    best = choose(CONFIG, SMALL, roomy)
    assert (best.remat, best.micro_batches) == ("none", 1)
    # With memory for less than that it computes again instead.
    tight = dataclasses.replace(roomy, chip=dataclasses.replace(slow, hbm_gb=0.9 * best.memory.total / 0.9e9))
    other = choose(CONFIG, SMALL, tight)
    assert other.memory.total < best.memory.total
    assert other.remat != "none"
    nothing = dataclasses.replace(roomy, chip=dataclasses.replace(slow, hbm_gb=1e-5))
    with pytest.raises(InputError, match=r"^2 x h200: "):
        choose(CONFIG, SMALL, nothing)


def test_plan_adds_up():
    machine = Machine(CHIPS["v5e"], 4, dollars=2.0, micro_batches=1, remat="none")
    made = make_plan(CONFIG, machine, SMALL)
    for stage in made["stages"]:
        seconds = made["steps"][stage["objective"]]["seconds"]
        assert stage["train_hours"] == pytest.approx(stage["steps"] * seconds / 3600)
        assert stage["dollars"] == pytest.approx((stage["train_hours"] + stage["refresh_hours"]) * 4 * 2.0)
    by_name = {stage["name"]: stage for stage in made["stages"]}
    # 12 refreshes of 43M passages against 6 of 18M, and the searches grow alike.
    ratio = by_name["XOR-Full"]["refresh_hours"] / by_name["XOR-Retrieve"]["refresh_hours"]
    assert ratio == pytest.approx(12 * 43 / (6 * 18))
    assert made["steps"]["stage1"]["memory_gb"]["teacher"] > 0 == made["steps"]["end_to_end"]["memory_gb"]["teacher"]


def test_bad_settings_are_named():
    with pytest.raises(InputError, match=r"^size: .*'larg'.*'large'"):
        model_config("larg")
    with pytest.raises(InputError, match=r"^mesh: .*\b8\b"):
        check_mesh({"data": 1, "fsdp": 6, "tensor": 1}, 8, 64, 1)
    with pytest.raises(InputError, match=r"^batch: 64 .*\b24$"):
        check_mesh({"data": 1, "fsdp": 8, "tensor": 1}, 8, 64, 3)


def test_sizes_are_those_of_the_gin_files():
    assert (model_config("large").d_ff, model_config("small").num_heads, model_config("tiny").vocab_size) == (
        2816,
        6,
        32000,
    )


@pytest.fixture(scope="module")
def app():
    made = typer.Typer(pretty_exceptions_enable=False)
    made.command()(plan)
    return made


def test_command_writes_the_plan(app, tmp_path):
    out = tmp_path / "plan.json"
    given = ["--size", "tiny", "--chip", "H200", "--devices", "2", "--price", "3", "--out", str(out)]
    run = CliRunner().invoke(
        app, [*given, "--passages", "4", "--batch", "8", "--remat", "full", "--micro-batches", "2"]
    )
    assert run.exit_code == 0, run.output
    assert "Projected, not measured" in run.output and "XOR-Full" in run.output
    made = json.loads(out.read_text())
    assert made["chip"]["dollars"] == 3 and made["devices"] == 2
    assert made["steps"]["stage1"]["mesh"]["data"] * made["steps"]["stage1"]["mesh"]["fsdp"] == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--chip", "gpu"], "chip: "),
        (["--mesh", "1,2"], "mesh"),
        (["--mesh", "3,1,1"], "mesh: "),
        (["--remat", "ful"], "'full'"),
        (["--size", "xxl", "--chip", "v5e", "--devices", "4"], "4 x v5e: "),
    ],
)
def test_command_refuses_in_one_line(app, given, message):
    run = CliRunner().invoke(app, given)
    assert isinstance(run.exception, InputError) and message in str(run.exception)
    assert "\n" not in str(run.exception)
