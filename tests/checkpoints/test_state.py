# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Training state: whole or refused, newest and best kept, bit for bit on any mesh."""

import asyncio
import contextlib
import gc
import json
import logging
import math
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from class_jax.checkpoints import state
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.errors import InputError

pytestmark = pytest.mark.core

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (96, 128)


def make_arrays(step: int) -> dict:
    """Parameters, an optimizer state of named tuples, and a typed random key, all functions of the step."""
    generator = np.random.default_rng(step)
    params = {
        "embed": {"embedding": jnp.asarray(generator.standard_normal(SIZE), jnp.float32)},
        "norm": {"scale": jnp.asarray(generator.standard_normal(7), jnp.bfloat16)},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.1, 0, 10)))
    gradients = jax.tree.map(lambda x: x * 0.5, params)
    opt_state = optimizer.update(gradients, optimizer.init(params), params)[1]
    return {"params": params, "opt_state": opt_state, "rng": jax.random.key(step), "raw": jax.random.PRNGKey(step)}


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope="module")
def target():
    return abstract(make_arrays(0))


def save_steps(folder, steps, **settings):
    with TrainCheckpoints(folder, **settings) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_arrays(step), {"step": step, "vocabulary": "v1"})


def array_files(folder: Path, step: int) -> list[Path]:
    return sorted(path for path in (folder / str(step) / "arrays").rglob("*") if path.is_file())


def test_round_trip_keeps_bits_named_tuples_and_random_keys(tmp_path, target):
    host = {"iterator": {"position": [3, 4], "seed": 2**60}, "lists": 12, "nothing": None, "rate": math.pi, "ü": "ü"}
    with TrainCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(target) is None and checkpoints.read_metadata() is None
        checkpoints.save(5, make_arrays(5), host)
        arrays, read_host, step = checkpoints.restore(target)
    assert (step, read_host) == (5, host)
    assert_same(arrays, make_arrays(5))
    assert isinstance(arrays["opt_state"][1][0], optax.ScaleByAdamState)
    assert jax.random.normal(arrays["rng"], (2,)).tolist() == jax.random.normal(jax.random.key(5), (2,)).tolist()
    with TrainCheckpoints(tmp_path, read_only=True) as reader:
        part, _, _ = reader.restore({"params": target["params"]}, partial=True)
        assert_same(part, {"params": make_arrays(5)["params"]})
        assert reader.read_metadata() == (host, 5)
        with pytest.raises(InputError, match="opened for reading only"):
            reader.save(6, make_arrays(6), {})


def test_a_save_is_a_snapshot_though_its_arrays_are_donated_at_once(tmp_path):
    advance = jax.jit(lambda x: x * -1.5 + 1, donate_argnums=0)
    x = jnp.arange(2_000_000, dtype=jnp.float32)
    with TrainCheckpoints(tmp_path, keep_last=3) as checkpoints:
        expected = {}
        for step in range(3):
            expected[step] = np.array(x)
            checkpoints.save(step, {"x": x}, {})
            for _ in range(3):
                x = advance(x)
        x.block_until_ready()
        for step, value in expected.items():
            arrays, _, _ = checkpoints.restore({"x": jax.ShapeDtypeStruct(value.shape, value.dtype)}, step=step)
            assert np.array_equal(arrays["x"], value)


def test_keeps_the_last_and_the_best_also_after_reopening(tmp_path):
    scores = {1: 0.3, 2: 0.9, 3: math.nan, 4: 0.9, 5: None, 6: 0.1, 7: 0.2}
    tree = {"x": jnp.zeros(3)}
    for half in ([1, 2, 3], [4, 5, 6, 7]):
        with TrainCheckpoints(tmp_path, keep_last=2, keep_best=1, best_metric="f1") as checkpoints:
            for step in half:
                metrics = None if scores[step] is None else {"f1": scores[step], "em": 0.0}
                checkpoints.save(step, tree, {}, metrics)
    with TrainCheckpoints(tmp_path, keep_last=2, keep_best=2, best_metric="f1", best_mode="min") as checkpoints:
        assert checkpoints.steps() == [4, 6, 7]  # 4 equals 2 and is newer
        assert checkpoints.best_step() == 6
        checkpoints.save(8, tree, {}, {"f1": 0.8})
        checkpoints.save(9, tree, {}, {"f1": 0.7})
        checkpoints.wait()
        assert checkpoints.steps() == [6, 7, 8, 9]
        with pytest.raises(InputError, match="f1: is not among the metrics; known: F1"):
            checkpoints.save(10, tree, {}, {"F1": 1.0})
        with pytest.raises(InputError, match="step 9 is not newer than the newest saved step, 9"):
            checkpoints.save(9, tree, {})
    with TrainCheckpoints(tmp_path, read_only=True, best_metric="f1") as checkpoints:
        assert checkpoints.best_step() == 8


@pytest.mark.parametrize("setting", [{"keep_last": 0}, {"keep_best": -1}, {"best_mode": "maxx"}])
def test_refuses_settings_out_of_range(tmp_path, setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        TrainCheckpoints(tmp_path, **setting)


def test_names_what_differs_from_the_target(tmp_path, target):
    save_steps(tmp_path, [1])
    with TrainCheckpoints(tmp_path) as checkpoints:
        other = {**target, "params": {"embed": {"embeding": target["params"]["embed"]["embedding"]}}}
        other["params"]["norm"] = {"scale": jax.ShapeDtypeStruct((9,), jnp.bfloat16)}
        with pytest.raises(InputError) as caught:
            checkpoints.restore(other)
        message = str(caught.value)
        assert (
            "params/norm/scale has shape (7) bfloat16 in the checkpoint but shape (9) bfloat16 in the target" in message
        )
        assert "params/embed/embeding (shape (96, 128) float32) is missing from the checkpoint" in message
        assert "did you mean 'params/embed/embedding'?" in message and "\n" not in message
        narrower = {**target, "rng": jax.ShapeDtypeStruct((2,), jnp.uint32)}
        with pytest.raises(InputError, match=r"rng has shape .* threefry2x32 in the checkpoint but shape .2. uint32"):
            checkpoints.restore(narrower)
        with pytest.raises(InputError, match="unknown to the target"):
            checkpoints.restore({"params": target["params"]})
        with pytest.raises(InputError, match="vocabulary: 'v1' in the checkpoint but 'v2' in this run"):
            checkpoints.restore(target, expect={"vocabulary": "v2"})
        with pytest.raises(InputError, match="vocabulry: was not saved; did you mean 'vocabulary'"):
            checkpoints.restore(target, expect={"vocabulry": "v1"})
        assert checkpoints.restore(target, expect={"vocabulary": "v1", "step": 1})[2] == 1
        with pytest.raises(InputError, match="no whole step 3; saved: 1"):
            checkpoints.restore(target, step=3)
        with pytest.raises(InputError, match="x: is int64, which JAX would narrow to int32"):
            checkpoints.save(2, {"x": np.zeros(2, np.int64)}, {})


def test_every_flipped_bit_is_refused_in_favour_of_the_step_before(tmp_path, target, caplog):
    save_steps(tmp_path, [1, 2])
    draw = random.Random(0)
    files = array_files(tmp_path, 2)
    payload = [path for path in files if path.stat().st_size > 20_000]
    refused = 0
    with TrainCheckpoints(tmp_path) as checkpoints:
        for _ in range(20):
            path = draw.choice(payload)
            content = path.read_bytes()
            damaged = bytearray(content)
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            arrays, host, step = checkpoints.restore(target)
            refused += step == 1
            assert host["step"] == step
            assert_same(arrays, make_arrays(step))
            path.write_bytes(content)
        assert refused == 20
        assert "restore another step" in caplog.text
        assert checkpoints.restore(target, step=2)[2] == 2


def test_names_the_damaged_array_and_restores_the_step_before(tmp_path, target, monkeypatch):
    save_steps(tmp_path, [1, 2])
    real = TrainCheckpoints._read

    def flipped(self, step, item, *arguments):
        read = real(self, step, item, *arguments)
        if step == 2 and item == "arrays":
            bits = jax.lax.bitcast_convert_type(read["params"]["embed"]["embedding"], jnp.uint32)
            read["params"]["embed"]["embedding"] = jax.lax.bitcast_convert_type(
                bits.at[95, 127].set(bits[95, 127] ^ 1), jnp.float32
            )
        return read

    with TrainCheckpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(TrainCheckpoints, "_read", flipped)
        with pytest.raises(InputError, match="/2: array params/embed/embedding is damaged"):
            checkpoints.restore(target, step=2)
        assert checkpoints.restore(target)[2] == 1
        monkeypatch.setattr(TrainCheckpoints, "_read", real)
        # Training repeats steps 1 to 2: the damaged folder makes room, and is not lost.
        checkpoints.save(2, make_arrays(2), {})
        assert checkpoints.restore(target)[2] == 2
        assert (tmp_path / "damaged-2" / "commit_success.txt").exists()


def test_a_damaged_host_state_or_missing_file_falls_back_and_all_damaged_is_an_error(tmp_path, target):
    save_steps(tmp_path, [1, 2, 3])
    (text,) = [path for path in (tmp_path / "3" / "host").iterdir() if b"v1" in path.read_bytes()]
    text.write_bytes(text.read_bytes().replace(b'"v1"', b'"v3"'))
    for path in array_files(tmp_path, 2):
        path.unlink()
    with TrainCheckpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match="/3: its metadata is damaged"):
            checkpoints.restore(target, step=3)
        assert checkpoints.restore(target)[2] == 1
        assert checkpoints.read_metadata()[1] == 2  # the metadata of step 2 is whole
        for path in array_files(tmp_path, 1):
            path.write_bytes(b"")
        with pytest.raises(InputError, match=r"/1: cannot be read \("):
            checkpoints.restore(target)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's; see training/main.py
def test_a_full_disk_is_one_line_and_older_steps_still_restore(tmp_path, target, caplog):
    save_steps(tmp_path, [1])
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((500, 500)), jnp.float32)  # does not compress
    arrays = {f"x{i}": noise for i in range(8)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TrainCheckpoints(tmp_path, keep_last=1) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            with pytest.raises(
                InputError, match=r"/2: could not be written \(File too large\); free some space; saved: 1"
            ):
                checkpoints.save(2, arrays, {})
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        gc.collect()  # what asyncio reports of the other writes, it reports here
        assert [record.name for record in caplog.records if record.exc_info] == []
        assert checkpoints.steps() == [1] and not (tmp_path / "2").exists()
        assert_same(checkpoints.restore(target)[0], make_arrays(1))
        checkpoints.save(2, {"x": noise}, {})
        checkpoints.wait()
        assert checkpoints.steps() == [2]


def test_an_unfinished_step_goes_though_writes_still_come(tmp_path):
    unfinished = tmp_path / "2" / "arrays"
    unfinished.mkdir(parents=True)
    stop = time.monotonic() + 0.4

    def write():
        number = 0
        while time.monotonic() < stop:
            number += 1
            with contextlib.suppress(OSError):
                unfinished.mkdir(parents=True, exist_ok=True)
                (unfinished / str(number)).write_bytes(b"late")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    TrainCheckpoints(tmp_path).close()
    for writer in writers:
        writer.join()
    assert not (tmp_path / "2").exists()


def test_what_cannot_be_removed_is_said_at_once(tmp_path, caplog, monkeypatch):
    (tmp_path / "2").mkdir()
    monkeypatch.setattr(type(epath.Path(tmp_path)), "rmtree", refuse)
    begun = time.monotonic()
    TrainCheckpoints(tmp_path).close()
    assert "2: could not be removed (not yours: " in caplog.text and "delete it" in caplog.text
    assert time.monotonic() - begun < state.REMOVAL_SECONDS


def refuse(folder, missing_ok=False):
    raise PermissionError(f"not yours: {folder}")


def test_what_asyncio_says_later_of_a_failed_save_is_dropped(tmp_path, caplog):
    TrainCheckpoints(tmp_path).close()
    for file in ("/packages/orbax/checkpoint/write.py", "/packages/other/write.py"):
        try:
            exec(compile("raise ValueError('disk')", file, "exec"))
        except ValueError as error:
            context = {"message": f"Task exception was never retrieved: {file}", "exception": error}
            asyncio.new_event_loop().call_exception_handler(context)
    assert [record.message.split()[5] for record in caplog.records] == ["/packages/other/write.py"]


SAVER = """
import sys
import jax, numpy as np
from class_jax.checkpoints.state import TrainCheckpoints
with TrainCheckpoints(sys.argv[1], keep_last=2) as checkpoints:
    restored = checkpoints.restore({"x": jax.ShapeDtypeStruct((200, 300), np.float32)})
    step = restored[2] if restored else 0
    while True:
        step += 1
        arrays = {"x": np.random.default_rng(step).standard_normal((200, 300)).astype(np.float32)}
        checkpoints.save(step, arrays, {"step": step})
        print(f"begun {step}", flush=True)
        if step % 2 == 0:
            checkpoints.wait()
            print(f"whole {step}", flush=True)
"""


def start(script: str, *arguments: str, devices: int = 1) -> subprocess.Popen:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )


def test_kill_in_mid_save_never_costs_a_whole_step(tmp_path):
    draw = random.Random(1)
    for _ in range(4):
        process = start(SAVER, str(tmp_path))
        whole, output = 0, []
        try:
            for line in process.stdout:
                output.append(line)
                word, _, number = line.partition(" ")
                if word == "whole":
                    whole = int(number)
                elif word == "begun" and whole and int(number) > whole:
                    time.sleep(draw.uniform(0, 0.02))
                    break
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert whole, "".join(output)
        with TrainCheckpoints(tmp_path, read_only=True) as checkpoints:
            arrays, host, step = checkpoints.restore({"x": jax.ShapeDtypeStruct((200, 300), np.float32)})
        assert step >= whole and host["step"] == step
        assert np.array_equal(arrays["x"], np.random.default_rng(step).standard_normal((200, 300)).astype(np.float32))


MESHES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from class_jax.checkpoints.state import TrainCheckpoints

def place(shape, specs):
    mesh = jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}

values = {name: np.random.default_rng(7).standard_normal(size).astype(np.float32)
          for name, size in {"kernel": (16, 24), "stacked": (4, 8, 8), "scale": (8,)}.items()}
first = place((2, 4), {"kernel": P("data", "fsdp"), "stacked": P(None, "fsdp"), "scale": P()})
with TrainCheckpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(1, {n: jax.device_put(v, first[n]) for n, v in values.items()}, {})
    checkpoints.wait()
    same = {}
    for label, shape, specs in (
        ("as saved", (2, 4), {"kernel": P("data", "fsdp"), "stacked": P(None, "fsdp"), "scale": P()}),
        ("other mesh", (8, 1), {"kernel": P(None, "data"), "stacked": P(None, None, "data"), "scale": P("data")}),
        ("one device", (1, 1), {"kernel": P(), "stacked": P(), "scale": P()}),
    ):
        shardings = place(shape, specs)
        target = {n: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=shardings[n]) for n, v in values.items()}
        arrays = checkpoints.restore(target)[0]
        same[label] = all(np.asarray(arrays[n]).tobytes() == v.tobytes() and arrays[n].sharding == shardings[n]
                          for n, v in values.items())
    from class_jax.checkpoints.digests import digest_arrays, first_damaged
    sharded = {n: jax.device_put(v, first[n]) for n, v in values.items()}
    records = digest_arrays(sharded)
    same["chunks"] = [len(records[n]["chunks"]) for n in ("kernel", "stacked", "scale")] == [8, 4, 1]
    other = place((8, 1), {"kernel": P(None, "data"), "stacked": P(), "scale": P()})
    for sharding in (first, other):
        flipped = dict(values, kernel=values["kernel"].copy())
        flipped["kernel"].view(np.uint32)[15, 23] ^= 1
        found = first_damaged({n: jax.device_put(v, sharding[n]) for n, v in flipped.items()}, records)
        same[f"flip seen {len(same)}"] = found == "kernel"
print("RESULT", json.dumps(same))
"""


def test_restores_bit_for_bit_on_other_meshes_of_eight_devices(tmp_path):
    process = start(MESHES, str(tmp_path), devices=8)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    result = json.loads(output.rpartition("RESULT ")[2])
    assert len(result) == 6 and all(result.values()), result


TWO_PROCESSES = """
import sys
from pathlib import Path
import jax, numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from class_jax.checkpoints.state import TrainCheckpoints

folder, port, process = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, heartbeat_timeout_seconds=10, initialization_timeout=60)
mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
value = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
place = lambda spec: NamedSharding(mesh, spec)
make = lambda: jax.make_array_from_callback(value.shape, place(P("data", "fsdp")), lambda index: value[index])

def restored(checkpoints, spec):
    arrays, _, step = checkpoints.restore({"x": jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=place(spec))})
    assert all(np.array_equal(np.asarray(s.data), value[s.index]) for s in arrays["x"].addressable_shards)
    return step

with TrainCheckpoints(folder) as checkpoints:
    for step in (1, 2):
        checkpoints.save(step, {"x": make()}, {})
    assert [restored(checkpoints, spec) for spec in (P("data", "fsdp"), P(None, "data"), P())] == [2, 2, 2]
    if process == 0:  # damage what only process 1 wrote and reads
        data = max((folder / "2/arrays/ocdbt.process_1/d").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 4
        data.write_bytes(content)
    multihost_utils.sync_global_devices("damaged")
    assert restored(checkpoints, P("data", "fsdp")) == 1
    checkpoints.save(2, {"x": make()}, {})
    assert restored(checkpoints, P("data", "fsdp")) == 2
print("AGREED")
"""


@pytest.mark.slow
def test_two_processes_agree_on_which_step_is_whole(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [start(TWO_PROCESSES, str(tmp_path), port, str(number), devices=2) for number in range(2)]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all("AGREED" in output for output in outputs), "\n".join(outputs)


def test_unfinished_steps_are_removed_by_a_writer_only(tmp_path, target, caplog):
    caplog.set_level(logging.INFO)
    save_steps(tmp_path, [1, 2])
    (tmp_path / "2" / "commit_success.txt").unlink()
    with TrainCheckpoints(tmp_path, read_only=True) as reader:
        assert reader.steps() == [1] and reader.restore(target)[2] == 1
    assert (tmp_path / "2").exists()
    with TrainCheckpoints(tmp_path) as writer:
        assert writer.steps() == [1] and not (tmp_path / "2").exists()
    assert "never finished" in caplog.text
