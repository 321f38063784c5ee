# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A corpus into vectors: whatever the type, the lengths, the devices and the interruptions."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_corpus
import tiny_run

from class_jax.distributed import SINGLE_PROCESS
from class_jax.errors import InputError
from class_jax.models.encode import DualEncoder
from class_jax.retrieval import embed
from class_jax.retrieval.embed import EmbedSettings, embed_corpus
from class_jax.retrieval.index import open_index
from class_jax.retrieval.vectors import VectorStore

pytestmark = pytest.mark.core

WIDTH = 6
BUCKETS = (16, 24, 64)
TABLE = np.random.default_rng(0).normal(size=(tiny_run.PIECES, WIDTH)).astype(np.float32)


def token_vectors(params, ids, lengths):
    mask = jnp.arange(ids.shape[1]) < lengths[:, None]
    return jnp.where(mask[..., None], params[ids], jnp.nan), mask


def mean_vectors(params, ids, lengths):
    mask = jnp.arange(ids.shape[1]) < lengths[:, None]
    return jnp.where(mask[..., None], params[ids], 0).sum(1) / lengths[:, None], mask


MULTI = DualEncoder(token_vectors, token_vectors, "multi_vector")
DENSE = DualEncoder(mean_vectors, mean_vectors, "dense")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return tiny_corpus.build_corpus(folder)[1]


def run(store, folder, encoder=MULTI, table=TABLE, model="weights", hosts=SINGLE_PROCESS, **settings):
    given = EmbedSettings(**{"dtype": "float32", "batch": 4, "part_passages": 20, "buckets": BUCKETS, **settings})
    made = {"model": model, "settings": given, "hosts": hosts}
    return embed_corpus(encoder, jnp.asarray(table), store, folder, progress=False, **made)


def bytes_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_passage_in_order(store, tmp_path):
    made = run(store, tmp_path / "v")
    assert made.num_passages == store.num_passages == 48 and made.num_vectors == store.lengths.sum()
    assert len(set(store.lengths.tolist())) > 5
    for row in range(store.num_passages):
        np.testing.assert_array_equal(made.read(row, row + 1), TABLE[store.tokens(row)])
    opened = open_index(tmp_path / "v", verify=True)
    assert (opened.kind, opened.retriever, opened.model) == ("exact", "multi_vector", "weights")
    assert opened.corpus == store.fingerprint
    assert made.manifest["vocabulary"] == store.manifest["vocabulary"]["fingerprint"]
    assert {path.name for path in (tmp_path / "v").iterdir()} == {"manifest.json", "lengths.bin", "parts"}


def test_dense(store, tmp_path):
    made = run(store, tmp_path / "v", DENSE)
    expected = np.stack([TABLE[store.tokens(row)].mean(0) for row in range(48)])
    np.testing.assert_allclose(made.read(0, 48), expected, rtol=1e-5, atol=1e-6)
    rows, _ = open_index(tmp_path / "v").search(expected, None, 1)
    assert (rows[:, 0] == np.argmax(expected @ expected.T, axis=1)).all()


def test_batches_change_nothing(store, tmp_path):
    run(store, tmp_path / "a")
    run(store, tmp_path / "b", batch=16, buckets=(64,))
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2 * WIDTH), ("bfloat16", 2 * WIDTH), ("int8", WIDTH + 4)])
def test_types(store, tmp_path, dtype, size):
    made = run(store, tmp_path / "v", dtype=dtype)
    stored = sum(e["bytes"] for name, e in made.manifest["files"].items() if name.startswith("parts/"))
    assert stored == size * made.num_vectors
    exact = np.concatenate([TABLE[store.tokens(row)] for row in range(48)])
    worst = np.abs(made.read(0, 48) - exact).max(axis=1) / np.abs(exact).max(axis=1)
    assert 0 < worst.max() < {"float16": 2**-11, "bfloat16": 2**-8, "int8": 0.51 / 127}[dtype]


def test_a_killed_run_is_resumed(store, tmp_path, monkeypatch):
    run(store, tmp_path / "whole")
    embed_part, parts = embed._embed_part, []

    def watched(*arguments):
        parts.append(arguments[3])
        if parts == [0, 1]:
            raise KeyboardInterrupt
        return embed_part(*arguments)

    monkeypatch.setattr(embed, "_embed_part", watched)
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path / "v")
    with pytest.raises(InputError, match=r"no index here; let `class-jax embed` finish"):
        open_index(tmp_path / "v")
    for name in ("parts/00001.vectors", "parts/.00001.vectors.0123abcd.tmp", ".manifest.json.0123abcd.tmp"):
        (tmp_path / "v" / name).write_bytes(b"written when the power went")
    run(store, tmp_path / "v")
    assert parts == [0, 1, 1, 2]  # the whole part is kept, the others are made
    assert bytes_of(tmp_path / "v") == bytes_of(tmp_path / "whole")
    run(store, tmp_path / "v")
    assert parts == [0, 1, 1, 2]


def test_damaged_part_is_made_again(store, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path / "v")
    monkeypatch.undo()
    file = tmp_path / "v/parts/00001.vectors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    run(store, tmp_path / "v")
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, 'v: model: .*"weights", not "other"'),
        ({"dtype": "int8"}, 'v: dtype: .*"float32", not "int8"'),
        ({"encoder": DENSE}, "v: retriever: "),
    ],
)
def test_folder_of_other_vectors(store, tmp_path, monkeypatch, change, message):
    run(store, tmp_path / "v")
    with pytest.raises(InputError, match=message):
        run(store, tmp_path / "v", **change)
    (tmp_path / "v/manifest.json").rename(tmp_path / "v/else.json")
    with pytest.raises(InputError, match="holds something else"):
        run(store, tmp_path / "v")


@pytest.mark.parametrize("change", [{"model": "other"}, {"dtype": "int8"}, {"part_passages": 30}])
def test_unfinished_vectors_of_another_plan(store, tmp_path, monkeypatch, change):
    monkeypatch.setattr(embed, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path / "v")
    with pytest.raises(InputError, match=f"v: {next(iter(change))}: "):
        run(store, tmp_path / "v", **change)


def test_broken_weights(store, tmp_path):
    table = TABLE.copy()
    table[store.tokens(30)[3]] = np.inf
    first = next(row for row in range(48) if store.tokens(30)[3] in store.tokens(row))
    with pytest.raises(InputError, match=f"passage {store.id(first)}: the model's vectors are not finite"):
        run(store, tmp_path / "v", table=table)
    with pytest.raises(InputError, match="too large for float16"):
        run(store, tmp_path / "w", table=TABLE * 1e6, dtype="float16")


def test_bad_settings():
    with pytest.raises(InputError, match="dtype: unknown type 'float15'; did you mean 'float16'"):
        EmbedSettings(dtype="float15")
    with pytest.raises(InputError, match="batch: must be 1 or more"):
        EmbedSettings(batch=0)


_HOST = """
import sys, jax
import test_embed as t
from class_jax.corpus.store import TokenStore
from class_jax.distributed.start import ProcessGroupConfig, join_process_group
from pathlib import Path
store, out, host, port = sys.argv[1:]
hosts = join_process_group(ProcessGroupConfig(f"127.0.0.1:{port}", 2, int(host)))
assert len(jax.local_devices()) == 2 and jax.process_count() == 2
t.run(TokenStore.open(store), Path(out), hosts=hosts)
hosts.leave()
"""


def test_two_hosts_of_two_devices(store, tmp_path):
    """Hosts take parts in turn and a batch is sharded over a host's devices; the files are those of one device."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    flags = f"{tiny_run.XLA_FLAGS} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment["PYTHONPATH"] = os.pathsep.join(
        map(str, (tiny_run.REPOSITORY, tiny_run.SUPPORT, Path(__file__).parent))
    )
    command = [sys.executable, "-c", _HOST, str(store.folder), str(tmp_path / "two")]
    hosts = [
        subprocess.Popen([*command, str(i), str(port)], env=environment, stderr=subprocess.PIPE, text=True)
        for i in (0, 1)
    ]
    for host in hosts:
        _, error = host.communicate(timeout=240)
        assert host.returncode == 0, error
    run(store, tmp_path / "one")
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")
    assert len(json.loads((tmp_path / "two/manifest.json").read_text())["files"]) == 4
    assert isinstance(VectorStore.open(tmp_path / "two", verify=True), VectorStore) and jax.device_count() == 1
