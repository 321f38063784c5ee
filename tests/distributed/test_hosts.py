# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Several hosts train as one does; one that dies, fails, differs or never comes ends them all, with one clear line."""

import concurrent.futures
import shutil
import signal
import socket
import time
from types import SimpleNamespace

import host_processes
import numpy as np
import pytest
import tiny_run
from host_processes import free_port, run_hosts

from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.distributed import SINGLE_PROCESS, sharding
from class_jax.distributed.process_group import LOST
from class_jax.distributed.rendezvous import rendezvous
from class_jax.distributed.start import ProcessGroupConfig, join_process_group
from class_jax.errors import InputError
from class_jax.refresh.lists import PassageLists
from class_jax.retrieval.shards import merge_shards, shard_mask

# Losses of another number of hosts: sums over devices are taken in another order. Largest relative difference.
TOLERANCE = 1e-5

# Saved after steps 4 and 8. A refresh begins after step 4 with the weights of then, and is taken over for step 9.
SETTINGS = {
    "model_config__ModelConfig__d_model": 16,
    "optimizer__OptimizerConfig__total_steps": 10,
    "config__RefreshConfig__every": 4,
    "config__RefreshConfig__delay": 4,
    "config__TrainConfig__batch_size": 8,
}
GONE = (
    "error: host {} of 2 is gone (it was killed, or its machine or network failed); "
    "the same command on all hosts resumes from the last checkpoint"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_run.write_data(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def command(data):
    gin_file = tiny_run.write_gin(data, "end_to_end")
    return lambda run, **settings: tiny_run.arguments(gin_file, run, **SETTINGS | settings)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def devices(request):
    """Devices of each of two hosts."""
    return request.param


eight_devices = pytest.mark.parametrize("devices", [4], indirect=True)


@pytest.fixture(scope="module")
def on_one_host(command, cache, devices, tmp_path_factory):
    """The run on one host with the devices of two."""
    run = tmp_path_factory.mktemp("runs") / "one host"
    (ended,) = tiny_run.run_in_turn([command(run)], cache=cache, devices=2 * devices)
    assert ended.status == 0, ended.error
    return run


@pytest.fixture(scope="module")
def killed(command, cache, devices, tmp_path_factory):
    """The run on two hosts, of which host 1 was killed as it was about to save step 8."""
    run = tmp_path_factory.mktemp("runs") / "killed"
    processes = host_processes.start_hosts([command(run)] * 2, devices, stop={1: "SIGKILL save 8"}, cache=cache)
    processes[1].wait(host_processes.TIMEOUT)
    since = time.monotonic()
    survivor, dead = host_processes.ended(processes)
    assert dead.status == -signal.SIGKILL, dead.error
    return SimpleNamespace(run=run, survivor=survivor, seconds=survivor.at - since)


def assert_same_losses(run, expected):
    found, wanted = tiny_run.losses(run), tiny_run.losses(expected)
    assert list(found) == list(wanted)
    for step, loss in wanted.items():
        assert abs(found[step] - loss) <= TOLERANCE * abs(loss), f"step {step}: {found[step]} instead of {loss}"


def lists_of(run, version):
    return PassageLists.load(run / "lists" / f"lists-{version:06d}").rows


def copied(run, to):
    return shutil.copytree(run, to, ignore=shutil.ignore_patterns("*.orbax-checkpoint-tmp*"))


def test_a_host_that_is_killed_ends_the_others_with_a_line(killed):
    assert killed.survivor.status == LOST, killed.survivor.error
    assert killed.survivor.said == [GONE.format(1)]
    assert killed.seconds < 30


def test_two_hosts_resume_and_train_as_one_does(command, cache, devices, on_one_host, killed, tmp_path):
    run = copied(killed.run, tmp_path / "run")
    before = tiny_run.losses(run)
    ended = run_hosts([command(run)] * 2, devices, cache=cache)
    assert [host.status for host in ended] == [0, 0], ended[0].error + ended[1].error
    assert "resuming at step 4 of 10" in ended[0].error
    losses = tiny_run.losses(run)
    assert {step: losses[step] for step in before} == before and max(before) > 4  # bit for bit
    assert_same_losses(run, on_one_host)
    for version in (0, 1):
        np.testing.assert_array_equal(lists_of(run, version), lists_of(on_one_host, version))
    assert (lists_of(run, 0) != lists_of(run, 1)).any()
    assert not list((run / "lists").glob(".*"))
    staleness = [[line["staleness"] for line in tiny_run.metrics(of) if "loss" in line] for of in (run, on_one_host)]
    assert staleness[0] == staleness[1] and staleness[0][-1] == 5
    names = sorted(path.name for path in (on_one_host / "model").iterdir())
    assert sorted(path.name for path in (run / "model").iterdir()) == names


def test_hosts_with_different_settings_are_refused(command, tmp_path):
    run = tmp_path / "run"
    ended = run_hosts([command(run), command(run, config__TrainConfig__seed=3)], 1)
    line = "error: TrainConfig.seed: host 0 has 0, host 1 has 3; it must be the same on all hosts"
    assert [(host.status, host.said) for host in ended] == [(2, [line])] * 2, ended[0].error + ended[1].error
    assert not (run / "config.gin").exists()


def test_a_host_that_never_arrives_is_named(command, tmp_path):
    begun = time.monotonic()
    (ended,) = run_hosts([command(tmp_path / "run")], 1, processes=2, timeout=3)
    assert ended.said == [
        "error: host 1 of 2 did not arrive within 3 s (none but host 0 did); "
        "look at the output of the missing, and whether they can reach host 0"
    ]
    assert ended.status == 2
    assert ended.at - begun < host_processes.TIMEOUT


@pytest.mark.slow
@eight_devices
@pytest.mark.parametrize("hosts", [1, 4])
def test_other_layouts_resume(command, cache, on_one_host, killed, tmp_path, hosts):
    run = copied(killed.run, tmp_path / "run")
    if hosts == 1:
        ended = tiny_run.run_in_turn([command(run)], cache=cache, devices=8)
    else:
        ended = run_hosts([command(run)] * hosts, 8 // hosts, cache=cache)
    assert {host.status for host in ended} == {0}, ended[0].error
    assert "resuming at step 4 of 10" in ended[0].error
    assert_same_losses(run, on_one_host)


@pytest.mark.slow
def test_host_0_killed(command, cache, tmp_path):
    run = tmp_path / "run"
    dead, survivor = run_hosts([command(run)] * 2, 4, stop={0: "SIGKILL save 4"}, cache=cache)
    assert dead.status == -signal.SIGKILL
    assert GONE.format(0) in survivor.said
    assert survivor.status != 0 and survivor.at - dead.at < 30


@pytest.mark.slow
@eight_devices
def test_a_signal_to_one_host_stops_all_at_one_step(command, cache, on_one_host, tmp_path):
    run = tmp_path / "run"
    ended = run_hosts([command(run)] * 2, 4, stop={1: "SIGTERM save 4"}, cache=cache)
    assert [host.status for host in ended] == [2, 2], ended[0].error + ended[1].error
    stopped = max(tiny_run.losses(run))
    assert 4 <= stopped < 10
    line = f"error: {run}: stopped by SIGTERM at step {stopped}, which is saved; the same command resumes from there"
    assert [host.said for host in ended] == [[line]] * 2
    assert (run / "checkpoints" / str(stopped)).is_dir()
    ended = run_hosts([command(run)] * 2, 4, cache=cache)
    assert [host.status for host in ended] == [0, 0], ended[0].error
    assert_same_losses(run, on_one_host)


@pytest.mark.slow
def test_stage_1_with_evaluation(data, cache, tmp_path):
    settings = {
        **SETTINGS,
        "config__TrainConfig__evaluation": "@evaluator.EvaluationConfig()",
        "config__TrainConfig__evaluate_every": 4,
        "config__CheckpointConfig__best_metric": "eval/MRR/macro",
        "config__TrainConfig__question_noise": 1.0,
        "sharding__MeshConfig__fsdp": 4,
        "optimizer__OptimizerConfig__total_steps": 4,
    }
    gin_file = tiny_run.write_gin(data, "stage1", tmp_path / "stage1.gin")
    runs = tmp_path / "one", tmp_path / "two"
    one, two = (tiny_run.arguments(gin_file, run, **settings) for run in runs)
    (alone,) = tiny_run.run_in_turn([one], devices=8)
    assert alone.status == 0, alone.error
    ended = run_hosts([two] * 2, 4, cache=cache)
    assert [host.status for host in ended] == [0, 0], ended[0].error + ended[1].error
    assert_same_losses(runs[1], runs[0])
    measured = [[line for line in tiny_run.metrics(run) if "eval/MRR/macro" in line] for run in runs]
    assert measured[0] == measured[1] and len(measured[0]) == 1


@pytest.mark.slow
def test_hosts_with_different_corpora_are_refused(command, data, tmp_path):
    other = tmp_path / "other.tsv"
    lines = (data / "passages.tsv").read_text().splitlines(keepends=True)
    other.write_text("".join([*lines[:-1], lines[-1].replace("tea", "milk")]))
    run = tmp_path / "run"
    places = {"data__DataConfig__store": str(tmp_path / "store"), "data__DataConfig__passages": str(other)}
    ended = run_hosts([command(run), command(run, **places)], 1)
    for host in ended:
        assert host.status == 2, host.error
        assert len(host.said) == 1 and host.said[0].startswith("error: corpus: host 0 has "), host.error
        assert ", host 1 has " in host.said[0]


@pytest.mark.slow
def test_an_error_on_one_host_ends_all_with_its_message(command, data, tmp_path):
    run = tmp_path / "run"
    bad = command(
        run, data__DataConfig__passages=str(tmp_path / "none.tsv"), data__DataConfig__store=str(tmp_path / "s")
    )
    good, failed = run_hosts([command(run), bad], 1)
    assert (good.status, failed.status) == (2, 2), good.error + failed.error
    assert len(failed.said) == 1 and "none.tsv" in failed.said[0]
    assert good.said == [failed.said[0].replace("error: ", "error: host 1: ")]


# Restores the state that another layout saved, and saves it again.
PASS_ON = """
import sys
import jax
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.models import ModelConfig
from class_jax.training import optimizer, step
from class_jax.distributed import sharding
from class_jax.distributed.start import ProcessGroupConfig, join_process_group

source, target, fsdp, *flags = sys.argv[1:]
given = dict(flag.removeprefix("--").split("=") for flag in flags)
if given:
    hosts = join_process_group(ProcessGroupConfig(given["coordinator"], int(given["processes"]), int(given["process"])))
config = ModelConfig(vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_decoder_layers=1, num_heads=2,
                     retriever_head=1)
adamw = optimizer.make_optimizer(optimizer.OptimizerConfig(total_steps=10))
mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=int(fsdp)))
if source == "none":
    state, at = step.init_state(config, adamw, mesh, seed=1), 0
else:
    with TrainCheckpoints(source, read_only=True) as checkpoints:
        arrays, _, at = checkpoints.restore(step.state_shapes(config, adamw, mesh)._asdict())
    state = step.TrainState(**arrays)
with TrainCheckpoints(target) as checkpoints:
    checkpoints.save(at + 1, state._asdict(), {})
if given:
    hosts.leave()
"""


@pytest.mark.slow
def test_a_checkpoint_passes_from_layout_to_layout_bit_for_bit(tmp_path):
    script = tmp_path / "pass_on.py"
    script.write_text(PASS_ON)
    source = "none"
    for number, (hosts, devices, fsdp) in enumerate([(1, 8, 1), (2, 4, 8), (4, 2, 2), (1, 8, 4)]):
        target = str(tmp_path / str(number))
        arguments = [str(script), source, target, str(fsdp)]
        if hosts == 1:
            ended = host_processes.ended([tiny_run.start(arguments, devices=devices)])
        else:
            ended = host_processes.run_hosts([arguments] * hosts, devices)
        assert {host.status for host in ended} == {0}, ended[0].error
        source = target
    folders = [tmp_path / str(number) for number in range(4)]
    arrays = []
    for folder in folders:
        with TrainCheckpoints(folder, read_only=True) as checkpoints:
            found, _, _ = checkpoints.open_arrays()
            arrays.append({name: array.load() for name, array in found.items()})
    assert len(arrays[0]) > 20
    for other in arrays[1:]:
        assert other.keys() == arrays[0].keys()
        for name, array in arrays[0].items():
            assert (other[name].dtype, other[name].tobytes()) == (array.dtype, array.tobytes()), name


class TestRendezvous:
    """Who is there; in threads of this process."""

    @staticmethod
    def call(*hellos, timeout=5.0):
        """What each of `hellos` (index, count, versions) gets: linked hosts, or the error's message."""
        address = f"127.0.0.1:{free_port()}"

        def one(index, count, versions):
            try:
                return rendezvous(index, count, address, timeout, versions)
            except InputError as error:
                return str(error)

        with concurrent.futures.ThreadPoolExecutor(len(hellos)) as pool:
            return list(pool.map(lambda hello: one(*hello), hellos))

    def test_all_come_and_agree(self):
        linked = self.call(*((host, 3, {"jax": "1"}) for host in range(3)))
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda one: one.exchange("x", {"host": one.index}), linked))
            assert found == [[{"host": 0}, {"host": 1}, {"host": 2}]] * 3
            order = []
            list(pool.map(lambda one: one.first("y", lambda: order.append(one.index)), linked))
            assert order[0] == 0 and sorted(order) == [0, 1, 2]
            # Host 1 has got two steps further than the others when host 2 is asked to stop.
            steps = (4, 6, 4)
            begun = [one.stop_after(step, []) for one, at in zip(linked, steps, strict=True) for step in range(at)]
            assert begun == [None] * 14
            stops = list(pool.map(self.stops, linked, steps))
            # Step 6 is begun everywhere; host 1 may have begun step 7 before the word came.
            assert stops[0] in [(6, "SIGTERM"), (7, "SIGTERM")] and stops == stops[:1] * 3
            list(pool.map(lambda one: one.leave(), linked))

    @staticmethod
    def stops(one, step):
        while (name := one.stop_after(step, ["SIGTERM"] if one.index == 2 else [])) is None:
            time.sleep(0.05)
            step += 1
        return step, name

    def test_one_is_missing(self):
        said = self.call((0, 4, {}), (2, 4, {}), timeout=1.0)
        assert said[0] == said[1]
        assert said[0].startswith("hosts 1, 3 of 4 did not arrive within 1 s (arrived: hosts 0, 2)")

    def test_host_0_is_missing(self):
        (said,) = self.call((1, 2, {}), timeout=0.5)
        assert said.startswith("host 0 did not answer at 127.0.0.1:") and "within 0.5 s (Connection refused)" in said

    def test_versions_differ(self):
        said = self.call((0, 3, {"jax": "1"}), (1, 3, {"jax": "2"}), (2, 3, {"jax": "1"}))
        assert said == ["jax: hosts 0, 2 have 1, host 1 has 2; it must be the same on all hosts"] * 3

    def test_counts_differ(self):
        said = self.call((0, 2, {}), (1, 3, {}))
        assert said == ["--processes is 2 on host 0 and 3 on host 1; give the same number to all"] * 2

    def test_an_index_twice(self):
        said = self.call((0, 3, {}), (1, 3, {}), (1, 3, {}))
        assert said == ["two processes have index 1; give each its own index"] * 3

    def test_the_port_is_taken(self):
        with socket.create_server(("", 0)) as taken, pytest.raises(InputError, match="can't be listened on"):
            rendezvous(0, 2, f"127.0.0.1:{taken.getsockname()[1]}", 1.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"coordinator": "a:1", "processes": 2}, "--process: is not set"),
        ({"processes": 2, "process": 0}, "--coordinator: is not set"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "--coordinator: is 'a'; give HOST:PORT"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "--process: is 2, of 2; count from 0"),
        ({"coordinator": "a:1", "processes": 0, "process": 0}, "--processes: is 0"),
        ({"timeout": 0.0}, "--host_timeout: is 0"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(InputError) as caught:
        ProcessGroupConfig(**flags)
    assert message in str(caught.value)


def test_no_cluster_is_found():
    with pytest.raises(InputError, match="--distributed: finds no cluster"):
        join_process_group(ProcessGroupConfig(detect=True, timeout=1.0))


def test_one_host_needs_nothing():
    assert join_process_group(ProcessGroupConfig()) is SINGLE_PROCESS
    assert SINGLE_PROCESS.exchange("x", 3) == [3] and SINGLE_PROCESS.first("x", lambda: 4) == 4
    assert SINGLE_PROCESS.stop_after(5, []) is None and SINGLE_PROCESS.stop_after(5, ["SIGINT"]) == "SIGINT"


def mesh_of(processes, shape):
    """A mesh of made-up devices, of the given processes in its order."""
    devices = [SimpleNamespace(process_index=process, id=i) for i, process in enumerate(processes)]
    sizes = dict(zip(sharding.MESH_AXES, shape, strict=True))
    return SimpleNamespace(shape=sizes, devices=np.array(devices, object).reshape(shape))


@pytest.mark.parametrize(
    ("processes", "shape", "shares"),
    [
        ([0, 0, 1, 1], (4, 1, 1), {0: (0, 2), 1: (1, 2)}),
        ([0, 0, 1, 1], (2, 1, 2), {0: (0, 2), 1: (1, 2)}),
        ([0, 0, 1, 1], (1, 1, 4), {0: (0, 1), 1: (0, 1)}),  # both hosts need the whole batch
        ([0, 1, 0, 1, 2, 3, 2, 3], (2, 1, 4), {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
        ([1, 1, 0, 0], (2, 2, 1), {0: (1, 2), 1: (0, 2)}),
        ([0, 1, 0, 1], (4, 1, 1), None),
        ([0, 0, 0, 1, 1, 1], (2, 1, 3), {0: (0, 2), 1: (1, 2)}),
        ([0, 0, 1, 1, 2, 2], (2, 1, 3), None),
        ([1, 1, 1, 0, 0, 2, 2, 2], (4, 1, 2), None),
    ],
)
def test_slices_of_a_batch(processes, shape, shares):
    assert sharding._shares(mesh_of(processes, shape)) == shares


@pytest.mark.parametrize("count", [1, 3, 7])
def test_parts_make_up_the_whole(count):
    rng = np.random.default_rng(count)
    allowed = rng.random(30) < 0.6
    parts = [shard_mask(allowed, 30, index, count) for index in range(count)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), allowed)
    scores = np.round(rng.normal(size=(4, 30)), 1).astype(np.float32)  # some are equal

    def best(mask, k):
        rows = np.flatnonzero(mask)
        order = np.lexsort((np.broadcast_to(rows, (4, len(rows))), -scores[:, rows]), axis=1)[:, :k]
        found = rows[order], np.take_along_axis(scores[:, rows], order, 1)
        fill = ((0, 0), (0, k - order.shape[1]))
        return np.pad(found[0], fill, constant_values=-1), np.pad(found[1], fill, constant_values=-np.inf)

    rows, values = merge_shards([best(part, 9) for part in parts], 9)
    expected = best(allowed, 9)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(values, expected[1])
