# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Counted FLOPs against counts by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from class_jax.errors import InputError
from class_jax.models import ModelConfig, merge, model_graph, param_shapes
from class_jax.objectives.batch import Batch
from class_jax.objectives.objectives import ObjectiveConfig, end_to_end
from class_jax.planning.flops import count_flops


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def model(function, *shapes):
    return count_flops(function, *shapes).model


def test_products():
    assert model(jnp.matmul, floats(3, 5), floats(5, 7)) == 2 * 3 * 5 * 7
    assert model(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), floats(2, 3, 5), floats(2, 7, 5)) == 2 * 2 * 3 * 5 * 7
    assert model(jnp.matmul, floats(0, 5), floats(5, 7)) == 0


def test_convolutions():
    def convolve(x, kernel, groups=1):
        return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", feature_group_count=groups)

    assert model(convolve, floats(2, 4, 10), floats(6, 4, 3)) == 2 * (2 * 6 * 8) * (4 * 3)
    assert model(lambda x, k: convolve(x, k, 2), floats(2, 4, 10), floats(6, 2, 3)) == 2 * (2 * 6 * 8) * (2 * 3)


def test_scan_counts_every_turn():
    def chain(x, kernels):
        return jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, kernels)[0]

    assert model(chain, floats(3, 4), floats(11, 4, 4)) == 11 * 2 * 3 * 4 * 4
    # A scan in a scan multiplies.
    nested = lambda x, kernels: jax.lax.scan(lambda x, _: (chain(x, kernels), None), x, length=5)[0]  # noqa: E731
    assert model(nested, floats(3, 4), floats(11, 4, 4)) == 5 * 11 * 2 * 3 * 4 * 4


def test_loops_of_a_known_number_of_turns():
    square = floats(4, 4)
    assert model(lambda x: jax.lax.fori_loop(0, 6, lambda _, x: x @ x, x), square) == 6 * 2 * 4**3

    def counting(start, stop, step):
        return lambda x: jax.lax.while_loop(lambda s: s[0] < stop, lambda s: (s[0] + step, s[1] @ s[1]), (start, x))

    assert model(counting(1, 8, 3), square) == 3 * 2 * 4**3  # 1, 4, 7
    assert model(counting(9, 8, 1), square) == 0


def test_loop_of_an_unknown_number_of_turns_is_refused():
    def until_small(x):
        return jax.lax.while_loop(lambda x: x.max() > 1.0, lambda x: x @ x, x)

    with pytest.raises(InputError, match="not constant"):
        count_flops(until_small, floats(4, 4))
    # Without a product in it the number does not matter.
    assert (
        model(lambda x: jax.lax.while_loop(lambda x: x.max() > 1.0, lambda x: x / 2, x) @ x, floats(4, 4)) == 2 * 4**3
    )


def test_cond_counts_its_dearest_branch():
    def either(choose, x):
        return jax.lax.cond(choose, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert model(either, jax.ShapeDtypeStruct((), jnp.bool_), floats(4, 4)) == 2 * 2 * 4**3


def test_gradient_of_an_mlp():
    def loss(params, x):
        return (jnp.tanh(x @ params[0]) @ params[1]).sum()

    shapes = (floats(8, 16), floats(16, 4)), floats(32, 8)
    first, second = 2 * 32 * 8 * 16, 2 * 32 * 16 * 4
    assert model(loss, *shapes) == first + second
    # Backward: each kernel's gradient, and the second product's input's (x itself needs none).
    assert model(jax.grad(loss), *shapes) == 2 * first + 3 * second


def test_jit_and_custom_derivatives_are_walked():
    @jax.custom_vjp
    def product(x, y):
        return x @ y

    product.defvjp(lambda x, y: (x @ y, (x, y)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    shapes = floats(3, 5), floats(5, 7)
    assert model(jax.jit(product), *shapes) == 2 * 3 * 5 * 7
    assert model(jax.jit(jax.grad(lambda x, y: product(x, y).sum(), argnums=(0, 1))), *shapes) == 3 * 2 * 3 * 5 * 7


def test_shard_map_counts_all_devices():
    mesh = jax.sharding.AbstractMesh((4,), ("x",), axis_types=(AxisType.Auto,))
    cut = jax.shard_map(
        jnp.matmul, mesh=mesh, in_specs=(PartitionSpec("x"), PartitionSpec()), out_specs=PartitionSpec("x")
    )
    assert model(cut, floats(8, 5), floats(5, 7)) == 2 * 8 * 5 * 7


def test_recomputation_is_counted_apart():
    def layer(x, kernel):
        return jnp.tanh(x @ kernel)

    def loss(kernel, x, wrap=lambda f: f):
        return (wrap(layer)(x, kernel) ** 2).sum()

    shapes = floats(8, 16), floats(4, 8)
    one = 2 * 4 * 8 * 16
    plain = count_flops(jax.grad(loss), *shapes)
    again = count_flops(jax.grad(lambda k, x: loss(k, x, jax.checkpoint)), *shapes)
    assert (plain.model, plain.recomputed) == (2 * one, 0)
    assert (again.model, again.recomputed, again.hardware) == (2 * one, one, 3 * one)


def test_model_flops_do_not_depend_on_remat_or_micro_batches():
    config = ModelConfig(64, 16, 8, 24, 4, 2, 2, retriever_head=1, dropout_rate=0.0)
    integers = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)  # noqa: E731
    batch = Batch(integers(4, 8), integers(4), integers(4, 3, 16), integers(4, 3), integers(4, 5), integers(4))

    def counted(remat, micro_batches):
        changed = dataclasses.replace(config, remat=remat)
        losses = ObjectiveConfig(micro_batches=micro_batches)
        loss = lambda p, b: end_to_end(merge(model_graph(changed), p), b, losses, None)  # noqa: E731
        return count_flops(jax.grad(loss, has_aux=True), param_shapes(changed), batch)

    plain = counted("none", 1)
    assert plain.recomputed == 0
    expected = None
    for remat, micro_batches in (("full", 1), ("full", 2), ("full", 4), ("dots", 2)):
        found = counted(remat, micro_batches)
        assert found.model == plain.model
        assert found.recomputed > 0
        if (remat, micro_batches) == ("full", 2):
            expected = found.recomputed
    assert counted("full", 4).recomputed == expected  # however many pieces, each is computed again as often


def test_breakdown_by_scope():
    def function(x, kernels):
        with jax.named_scope("outer"):
            with jax.named_scope("inner"):
                x = jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, kernels)[0]
            return jnp.einsum("ij,jk->ik", x, x).sum()

    found = count_flops(jax.value_and_grad(function), floats(4, 4), floats(3, 4, 4))
    one = 2 * 4**3
    assert found.by_scope(2) == {"outer/inner": 2 * 3 * one, "outer": 3 * one}
    assert found.by_scope() == {"outer": 9 * one}
    assert sum(found.scopes.values()) == found.model


def test_opaque_kernels_are_named():
    from jax.experimental import pallas

    def kernel(x, out):
        out[...] = x[...] @ x[...]

    call = pallas.pallas_call(kernel, out_shape=floats(4, 4), interpret=True)
    assert count_flops(call, floats(4, 4)).opaque == {"pallas_call": 1}
