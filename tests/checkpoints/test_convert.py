# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights from any layout into any other: exact, strict, whole or not at all."""

import dataclasses
import json
import resource
import shutil
import weakref

import jax
import numpy as np
import pytest
import tensorstore as ts
import tiny_run
import typer
from damage import flipped_bits
from hf_tensors import CONFIG, DENSE, make_tensors, same
from typer.testing import CliRunner

from class_jax.checkpoints import convert, hub, huggingface, runs, state, t5x
from class_jax.checkpoints.chunks import read_chunks
from class_jax.checkpoints.configs import config_to_hf
from class_jax.checkpoints.convert import HF, ORBAX, T5X, Retriever, open_source
from class_jax.checkpoints.leaves import LazyArray
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.checkpoints.tensor_files import TensorFiles, read_tensors
from class_jax.checkpoints.weights import load_params
from class_jax.commands.convert import convert as command
from class_jax.common.files import read_json, write_json
from class_jax.errors import InputError

pytestmark = pytest.mark.core

app = typer.Typer()
app.command()(command)


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Hundreds of tiny files need not reach the disk one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t5x, "_CONTEXT", ts.Context({"file_io_sync": False}))
        yield


def write_hf(folder, config=CONFIG, **settings):
    tensors = TensorFiles.of(make_tensors(config))
    huggingface.write_tensor_folder(folder, tensors, config, **settings)
    return tensors


def equal(folder, tensors):
    found = open_source(folder).tensors
    return set(found) == set(tensors) and all(same(np.ascontiguousarray(found[n]), tensors[n]) for n in tensors)


def run_command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def layouts(tmp_path_factory, unflushed):
    """The same dense model in each layout, one made from the other: hf -> t5x -> orbax -> hf2."""
    folder = tmp_path_factory.mktemp("layouts")
    tensors = write_hf(folder / HF, DENSE, max_shard_bytes=2000)
    for source, destination, layout in ((HF, T5X, T5X), (T5X, ORBAX, ORBAX), (ORBAX, "hf2", HF)):
        convert.convert(open_source(folder / source), folder / destination, layout, max_shard_bytes=2000)
    return folder, tensors


def test_round_trip_through_every_layout_is_exact(layouts):
    folder, tensors = layouts
    for name in (HF, T5X, ORBAX, "hf2"):
        assert equal(folder / name, tensors), name
    assert read_json(folder / HF / "config.json") == read_json(folder / "hf2" / "config.json")
    assert len(list((folder / "hf2").glob("*.safetensors"))) > 3


def test_the_other_directions(layouts, tmp_path):
    folder, tensors = layouts
    for source, layout in ((HF, ORBAX), (ORBAX, T5X), (T5X, HF)):
        convert.convert(open_source(folder / source), tmp_path / f"{source}-{layout}", layout)
        assert equal(tmp_path / f"{source}-{layout}", tensors), (source, layout)


def test_arrays_are_loaded_one_by_one(tmp_path):
    """However many tensors a model has, no two arrays of the source are alive together."""
    alive, most = set(), []

    def load(shape):
        array = np.ones(shape, np.float32)
        alive.add(id(array))
        weakref.finalize(array, alive.discard, id(array))
        most.append(len(alive))
        return array

    shapes = huggingface.shapes(DENSE)
    lazy = {name: LazyArray(s, np.dtype(np.float32), lambda s=s: load(s)) for name, s in shapes.items()}
    source = convert.Source(HF, DENSE, TensorFiles(lazy), None, ())
    for layout in (HF, T5X, ORBAX):
        most.clear()
        convert.convert(source, tmp_path / layout, layout)
        assert len(most) == len(shapes) and max(most) == 1, layout


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = write_hf("m")
    for source, layout in (("m", ORBAX), (ORBAX, T5X), (T5X, HF)):
        convert.convert(open_source(source), layout, layout)
        assert equal(layout, tensors), layout


def test_a_training_run_s_arrays_are_read_chunk_by_chunk(tmp_path, monkeypatch):
    """What `TrainCheckpoints` saves: the parameters are taken, the optimizer's state is left."""
    monkeypatch.setattr(state, "CHUNK_BYTES", 200)
    tensors = make_tensors(CONFIG)
    params = huggingface.to_params(tensors, CONFIG)
    with TrainCheckpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(
            3, {"params": params, "opt_state": {"mu": np.ones(3, np.float32)}}, {"model": CONFIG.fingerprint}
        )
    arrays = tmp_path / "run" / "checkpoints" / "3" / "arrays"
    kvstore = {"driver": "ocdbt", "base": f"file://{arrays}/", "path": "params.embed.embedding/"}
    stored = ts.open({"driver": "zarr", "kvstore": kvstore}, open=True).result()
    assert np.prod(stored.chunk_layout.write_chunk.shape) * 4 <= 200 < 4 * np.prod(stored.shape)
    found = open_source(tmp_path / "run")
    assert found.config == CONFIG and equal(tmp_path / "run", tensors)
    loaded = load_params(str(tmp_path / "run"), CONFIG)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_run_starts_from_what_is_converted(layouts):
    folder, tensors = layouts
    expected = huggingface.to_params(tensors, DENSE)
    for name in (ORBAX, T5X, HF):
        params = load_params(str(folder / name), DENSE, vocabulary="of some run")
        jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_shapes_and_fingerprint_give_an_old_run_s_configuration(layouts, tmp_path):
    config = dataclasses.replace(CONFIG, retriever_head=0)
    (tmp_path / "run").mkdir()
    runs.write_run(tmp_path / "run", TensorFiles.of(make_tensors(config)), config)
    for name in ("config.json", "digests.json"):
        (tmp_path / "run" / name).unlink()
    assert runs.read_run(tmp_path / "run")[0] == config
    other = dataclasses.replace(CONFIG, relative_attention_max_distance=64)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    runs.write_run(tmp_path / "run", TensorFiles.of(make_tensors(other)), other)
    for name in ("config.json", "digests.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(InputError, match="fingerprint fits no usual configuration of these shapes; give its config"):
        runs.read_run(tmp_path / "run")
    assert len(runs.read_run(tmp_path / "run", other)[1]) == len(make_tensors(other))
    with pytest.raises(InputError, match=r"head/kernel has shape \(6, 17\) in .* but shape \(6, 18\)"):
        runs.read_run(tmp_path / "run", dataclasses.replace(other, vocab_size=18))


@pytest.mark.parametrize("layout", [HF, T5X, ORBAX])
def test_flipped_bits_are_refused_in_every_layout(layouts, layout):
    """Headers, indexes, descriptions and arrays: every file but configuration and digests, which are text."""
    folder = layouts[0] / layout
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in files if path.name not in ("config.json", "digests.json")]
    for _ in flipped_bits(files, 50, seed=1):
        with pytest.raises(InputError, match="is damaged"):
            tensors = open_source(folder).tensors
            for name in tensors:
                tensors[name]
    assert equal(folder, layouts[1])


def test_a_damaged_array_of_a_run_without_digests_json_is_refused(layouts, tmp_path, monkeypatch):
    """As training writes it: the digests are in the step's own document."""
    shutil.copytree(layouts[0] / ORBAX, tmp_path / "run")
    (tmp_path / "run" / "digests.json").unlink()

    def flipped(store):
        array = read_chunks(store)
        if array.shape == (6, 17):
            array.view(np.uint32)[3, 4] ^= 1
        return array

    monkeypatch.setattr(state, "read_chunks", flipped)
    tensors = open_source(tmp_path / "run").tensors
    assert tensors["shared.weight"].shape == (17, 6)
    with pytest.raises(InputError, match="checkpoints/0: array params/head/kernel is damaged"):
        tensors["lm_head.weight"]


def test_damaged_digests_are_refused(layouts, tmp_path):
    shutil.copytree(layouts[0] / HF, tmp_path / "m")
    file = tmp_path / "m" / "digests.json"
    file.write_text(file.read_text().replace('"bytes": null', '"bytes": 3'))
    with pytest.raises(InputError, match=r"digests.json: is damaged .*delete digests.json"):
        open_source(tmp_path / "m")
    file.unlink()
    assert equal(tmp_path / "m", layouts[1])


def test_weights_that_took_others_place_are_not_taken_for_them(layouts, tmp_path):
    shutil.copytree(layouts[0] / HF, tmp_path / "m")
    write_hf(tmp_path / "other", DENSE)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "m")
    with pytest.raises(InputError, match=r"model.safetensors: is not among the files that digests.json names"):
        open_source(tmp_path / "m")


def test_mt5_becomes_class(tmp_path):
    """Dense projections are newly initialised, and standard output says so; the multi-vector retriever needs none."""
    write_hf(tmp_path / "mt5")
    config = config_to_hf(CONFIG)
    del config["retriever_layer"], config["retriever_head"]
    write_json(tmp_path / "mt5" / "config.json", config)
    (tmp_path / "mt5" / "digests.json").unlink()
    done = run_command("--from", tmp_path / "mt5", "--to", tmp_path / "dense", "--retriever", "dense")
    assert done.exit_code == 0 and "retriever: dense, layer 2" in done.stdout
    new = huggingface.missing_dense(make_tensors(CONFIG), DENSE)
    assert f"newly initialised, not in {tmp_path / 'mt5'}: {', '.join(new)}" in done.stdout
    made = open_source(tmp_path / "dense")
    assert made.config.retriever == "dense" and not made.new
    scale, projection = made.tensors[new[-1]], made.tensors[new[0]]
    assert (scale == 1).all() and 0.2 < projection.std() < 0.6  # 6^-0.5 = 0.41
    done = run_command("--from", tmp_path / "mt5", "--to", tmp_path / "mv", "--retriever-layer", 3, "--layout", "t5x")
    assert "multi-vector, layer 3, head 1" in done.stdout and "newly" not in done.stdout
    assert open_source(tmp_path / "mv").config.retriever_layer == 3


def test_reatt_s_own_names_of_layer_and_head(tmp_path):
    write_hf(tmp_path / "reatt")
    config = config_to_hf(CONFIG)
    del config["retriever_layer"], config["retriever_head"]
    (tmp_path / "reatt" / "digests.json").unlink()
    write_json(tmp_path / "reatt" / "config.json", config | {"retrieval_layer": 3, "retrieval_head": 0})
    found = open_source(tmp_path / "reatt").config
    assert (found.retriever, found.retriever_layer, found.retriever_head) == ("multi_vector", 3, 0)


def test_types_and_vocabulary(tmp_path):
    tensors = write_hf(tmp_path / "m")
    tiny_run.write_vocabulary(tmp_path / "v.model")
    arguments = ("--from", tmp_path / "m", "--to", tmp_path / "half", "--dtype", "bfloat16")
    done = run_command(*arguments, "--vocabulary", tmp_path / "v.model", "--shard-gb", 1)
    assert done.exit_code == 0, done.exception
    made = read_tensors(tmp_path / "half")
    assert {array.dtype.name for array in made.lazy.values()} == {"bfloat16"}
    assert read_json(tmp_path / "half" / "config.json")["torch_dtype"] == "bfloat16"
    assert (tmp_path / "half" / "spiece.model").read_bytes() == (tmp_path / "v.model").read_bytes()
    assert same(made["lm_head.weight"], tensors["lm_head.weight"].astype(made.lazy["lm_head.weight"].dtype))
    done = run_command(*arguments[:4], "--dtype", "bfloat")
    assert isinstance(done.exception, InputError) and "did you mean 'bfloat16'" in str(done.exception)


def test_a_destination_in_the_way(tmp_path):
    tensors = write_hf(tmp_path / "m")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").write_text("years of work")
    source = open_source(tmp_path / "m")
    with pytest.raises(InputError, match="there: is there already; choose another folder, or give --overwrite"):
        convert.convert(source, tmp_path / "there")
    assert (tmp_path / "there" / "thesis.txt").exists()
    convert.convert(source, tmp_path / "there", overwrite=True)
    assert equal(tmp_path / "there", tensors)
    convert.convert(source, tmp_path / "m", T5X, overwrite=True)  # onto itself: read to the end before it is replaced
    assert equal(tmp_path / "m", tensors)
    with pytest.raises(InputError, match="unknown layout 't5'; did you mean 't5x'"):
        convert.convert(open_source(tmp_path / "m"), tmp_path / "x", "t5")


@pytest.mark.parametrize("layout", [HF, T5X, ORBAX])
def test_a_full_disk_leaves_nothing_half(tmp_path, layout):
    write_hf(tmp_path / "m")
    source = open_source(tmp_path / "m")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, limits[1]))
    try:
        with pytest.raises(InputError, match="could not be written"):
            convert.convert(source, tmp_path / "out", layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_unknown_layouts_and_half_checkpoints_in_one_line(layouts, tmp_path):
    def refused(message, folder=tmp_path / "m"):
        with pytest.raises(InputError, match=message) as caught:
            open_source(folder)
        assert "\n" not in str(caught.value)

    refused("no such folder")
    (tmp_path / "m").mkdir()
    refused(r"holds no weights of a known layout; known layouts: Hugging Face \(model.safetensors")
    (tmp_path / "m" / "flax_model.msgpack").write_bytes(b"")
    refused("flax_model.msgpack: holds weights of Flax's transformers, which are not read here")
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(layouts[0] / HF, tmp_path / "m")
    (tmp_path / "m" / "digests.json").unlink()
    shard = sorted((tmp_path / "m").glob("*.safetensors"))[1]
    shard.unlink()
    refused(r"model.safetensors.index.json: shard model-0000\d-of-\d+.safetensors is missing; fetch it again")
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    refused("half a checkpoint: shards without their index")
    for file in (tmp_path / "m").glob("*.safetensors"):
        file.unlink()
    refused("half a checkpoint: config.json without weights")
    write_hf(tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()
    refused("half a checkpoint: weights without config.json")
    (tmp_path / "m" / "checkpoints").mkdir()
    refused(r"holds weights in 2 layouts \(hf, orbax\)")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "digests.json").unlink()
    refused("no whole checkpoint; train that run further")
    shutil.copytree(layouts[0] / T5X / "checkpoint_0", tmp_path / "arrays")
    (tmp_path / "arrays" / "checkpoint").unlink()
    refused("half a checkpoint: its index is missing", tmp_path / "arrays")


def test_names_of_what_differs(tmp_path):
    tensors = make_tensors(CONFIG)
    tensors["encoder.block.0.layer.0.SelfAttention.query.weight"] = tensors.pop(
        "encoder.block.0.layer.0.SelfAttention.q.weight"
    )
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1]
    huggingface.write_tensor_folder(tmp_path / "m", TensorFiles.of(tensors), CONFIG)
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "m")
    assert "SelfAttention.q.weight (shape (8, 6)) is missing from the checkpoint (did you mean 'encoder" in str(
        caught.value
    )
    assert "lm_head.weight has shape (16, 6) in the checkpoint but shape (17, 6)" in str(caught.value)
    shutil.rmtree(tmp_path / "m")
    write_hf(tmp_path / "m", DENSE)
    with pytest.raises(InputError, match=r"query_proj.weight .* is unknown to the configuration"):
        open_source(tmp_path / "m", retriever=Retriever("multi_vector", head=1))


@pytest.mark.torch
def test_a_bin_that_is_no_plain_state_dict(tmp_path):
    import torch

    write_json(tmp_path / "config.json", config_to_hf(CONFIG))
    torch.save({"model": dict.fromkeys("ab", torch.zeros(2))}, tmp_path / "pytorch_model.bin")
    done = run_command("--from", tmp_path, "--to", tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert "model: is a dict, not a tensor; save its state_dict() and nothing else" in str(done.exception)
    tensors = {name: torch.from_numpy(array) for name, array in make_tensors(CONFIG).items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert run_command("--from", tmp_path, "--to", tmp_path / "out", "--layout", "orbax").exit_code == 0
    assert equal(tmp_path / "out", make_tensors(CONFIG))


@pytest.mark.torch
def test_a_mapped_bin_is_mapped_anew(tmp_path, monkeypatch):
    """So that pages that were read once do not add up to the whole file."""
    import torch

    from class_jax.checkpoints import tensor_files

    expected = make_tensors(CONFIG)
    torch.save({name: torch.from_numpy(array) for name, array in expected.items()}, tmp_path / "pytorch_model.bin")
    opened, real = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: opened.append(1) or real(*args, **kwargs))
    monkeypatch.setattr(tensor_files, "_REMAP_BYTES", 3000)
    tensors = read_tensors(tmp_path)
    assert all(same(tensors[name], expected[name]) for name in expected)
    assert len(opened) > 3
    params = huggingface.to_params(tensors, CONFIG)
    with open(tmp_path / "pytorch_model.bin", "r+b") as f:  # parameters outlive the file
        f.write(bytes((tmp_path / "pytorch_model.bin").stat().st_size))
    jax.tree.map(np.testing.assert_array_equal, params, huggingface.to_params(expected, CONFIG))


class TestHub:
    """What `local_folder` does with ids, without a network."""

    @pytest.fixture
    def client(self, monkeypatch, tmp_path):
        huggingface_hub = pytest.importorskip("huggingface_hub")
        asked = []

        def snapshot_download(name, revision=None, local_files_only=False, allow_patterns=None):
            asked.append((name, revision, allow_patterns))
            if local_files_only and not (tmp_path / "cache").exists():
                raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
            if not local_files_only:
                write_hf(tmp_path / "cache")
            return str(tmp_path / "cache")

        files = ["config.json", "pytorch_model.bin", "model.safetensors"]
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name, revision=None: files)
        return huggingface_hub, asked

    def test_downloads_once_and_only_one_format(self, client, tmp_path):
        _, asked = client
        assert hub.local_folder("google/mt5-tiny", "v1") == tmp_path / "cache"
        assert asked[-1][:2] == ("google/mt5-tiny", "v1")
        assert {"config.json", "spiece.model", "model.safetensors"} <= set(asked[-1][2])
        assert not any(pattern.endswith(".bin") for pattern in asked[-1][2])
        count = len(asked)
        assert hub.local_folder("google/mt5-tiny", "v1") == tmp_path / "cache"
        assert len(asked) == count + 1 and asked[-1][2] is None  # from the cache only

    def test_a_cache_with_only_the_vocabulary_is_not_enough(self, client, tmp_path):
        _, asked = client
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "spiece.model").write_bytes(b"")
        hub.local_folder("google/mt5-tiny")
        assert asked[-1][2] is not None

    def test_offline(self, client, monkeypatch):
        module, _ = client

        def unreachable(name, revision=None):
            raise ConnectionError("no route to host")

        monkeypatch.setattr(module, "list_repo_files", unreachable)
        with pytest.raises(
            InputError, match="can't be reached; run `hf download a/b --local-dir FOLDER` where"
        ) as caught:
            hub.local_folder("a/b")
        assert "\n" not in str(caught.value)

    def test_no_such_model_or_folder(self, client, monkeypatch):
        module, _ = client

        def unknown(name, revision=None):
            error = module.errors.RepositoryNotFoundError.__new__(module.errors.RepositoryNotFoundError)
            raise error

        monkeypatch.setattr(module, "list_repo_files", unknown)
        with pytest.raises(InputError, match=r"no such model .* check the name"):
            hub.local_folder("a/b")
        for name in ("no-such-folder", "/no/such/folder", "./runs/mine"):
            with pytest.raises(InputError, match="no such folder; give a folder, or a Hugging Face id"):
                hub.local_folder(name)

    def test_without_the_client(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
        with pytest.raises(InputError, match="without huggingface_hub; pip install huggingface_hub, or give a folder"):
            hub.local_folder("a/b")


def test_progress_and_summary(layouts, capsys):
    source = open_source(layouts[0] / HF)
    with convert._progress(source.tensors) as tensors:
        assert same(tensors["lm_head.weight"], layouts[1]["lm_head.weight"])
    assert capsys.readouterr().err == ""  # no terminal, no bar
    lines = convert.summary("mine", source, "there", T5X).splitlines()
    assert lines[0].startswith(f"mine (hf) -> there (t5x): {len(source.tensors)} tensors, 0.00 GB")
    assert json.dumps(lines[-1]) == '"no spiece.model beside the weights: give it by --vocabulary"'
