# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: exact in both directions, strict about names and shapes, safe to open."""

import json
import pickle
import resource

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hf_tensors import CONFIG, DENSE, make_tensors, same

from class_jax.checkpoints.configs import config_from_hf, config_to_hf
from class_jax.checkpoints.huggingface import (
    from_params,
    missing_dense,
    names,
    to_params,
    with_missing_dense,
    write_safetensors,
)
from class_jax.checkpoints.tensor_files import read_tensors
from class_jax.common.files import read_json
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig

pytestmark = pytest.mark.core

TIED = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}


@pytest.mark.parametrize("config", [CONFIG, DENSE], ids=["multi_vector", "dense"])
def test_each_tensor_lands_where_it_belongs(config):
    tensors = make_tensors(config)
    params = to_params(tensors, config)
    D, H, K = config.d_model, config.num_heads, config.d_kv
    reader = params["encoder"]["reader_layers"]
    k = tensors["encoder.block.4.layer.0.SelfAttention.k.weight"]
    assert np.array_equal(reader["attention"]["k"]["kernel"][2], k.T.reshape(D, H, K))
    vector = np.arange(D, dtype=np.float32)
    # Head 1's vector, as PyTorch computes it (x W^T, then a view by heads), from our kernel.
    assert np.allclose(np.einsum("d,dhk->hk", vector, reader["attention"]["k"]["kernel"][2])[1], (k @ vector)[K:])
    o = tensors["decoder.block.2.layer.1.EncDecAttention.o.weight"]
    heads = np.arange(H * K, dtype=np.float32)
    kernel = params["decoder"]["layers"]["cross_attention"]["o"]["kernel"][2]
    assert np.allclose(np.einsum("hk,hkd->d", heads.reshape(H, K), kernel), o @ heads, rtol=1e-5)
    assert params["encoder"]["retriever_layers"]["mlp"]["wo"]["kernel"].shape == (2, config.d_ff, D)
    assert np.array_equal(
        params["encoder"]["retriever_layers"]["mlp"]["norm"]["scale"][1],
        tensors["encoder.block.1.layer.1.layer_norm.weight"],
    )
    assert np.array_equal(params["head"]["kernel"], tensors["lm_head.weight"].T)
    assert ("dense_head" in params) == (config.retriever == "dense")
    back = dict(from_params(jax.tree.map(jax.numpy.asarray, params), config))
    assert set(back) == set(tensors) == set(names(config))
    assert all(same(back[name], tensors[name]) for name in tensors)


def test_names_give_path_and_row():
    table = names(DENSE)
    assert table["encoder.block.3.layer.1.layer_norm.weight"] == (
        ("encoder", "reader_layers", "mlp", "norm", "scale"),
        1,
    )
    assert table["encoder.block.2.layer.0.SelfAttention.layer_norm.weight"] == (("dense_head", "norm", "scale"), None)
    rows = [place for place in table.values() if place[0] == ("decoder", "layers", "self_attention", "q", "kernel")]
    assert sorted(row for _, row in rows) == [0, 1, 2]


@pytest.mark.parametrize("variant", ["multi_vector", pytest.param("dense", marks=pytest.mark.torch_file)])
@pytest.mark.parametrize("part", ["hf_checkpoint", "hf_teacher"])
def test_the_reference_s_files_round_trip_exactly(golden, tmp_path, variant, part):
    folder = golden / "class_reference" / variant / part
    hf = read_json(folder / "config.json")
    config = ModelConfig(**config_from_hf(hf))
    assert config.retriever == ("dense" if hf.get("retriever_head") is None else "multi_vector")
    tensors = read_tensors(folder)
    write_safetensors(tmp_path / "out", to_params(tensors, config), config, max_shard_bytes=400_000)
    written = read_tensors(tmp_path / "out")
    assert set(written) == set(tensors) - TIED == set(names(config))
    assert all(same(written[name], tensors[name]) for name in written)
    again = read_json(tmp_path / "out" / "config.json")
    assert ModelConfig(**config_from_hf(again)) == config
    for key in ("d_kv", "d_ff", "feed_forward_proj", "retriever_layer", "num_decoder_layers", "tie_word_embeddings"):
        assert again[key] == hf[key]


@pytest.mark.torch
def test_transformers_reads_what_is_written(tmp_path):
    import torch
    import transformers

    tensors = make_tensors(CONFIG)
    write_safetensors(tmp_path / "m", to_params(tensors, CONFIG), CONFIG, max_shard_bytes=2000)
    model, report = transformers.MT5ForConditionalGeneration.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"] and not report["unexpected_keys"]
    state = model.state_dict()
    assert all(torch.equal(state[name], torch.from_numpy(tensor)) for name, tensor in tensors.items())
    model.save_pretrained(tmp_path / "theirs")
    assert all(same(read_tensors(tmp_path / "theirs")[name], tensors[name]) for name in tensors)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_layout_reads_alike(tmp_path, dtype):
    import torch

    tensors = {name: tensor.astype(dtype) for name, tensor in make_tensors(DENSE).items()}
    params = to_params(tensors, DENSE)
    write_safetensors(tmp_path / "one", params, DENSE)
    write_safetensors(tmp_path / "shards", params, DENSE, max_shard_bytes=1000)
    types = {np.float32: torch.float32, np.float16: torch.float16, ml_dtypes.bfloat16: torch.bfloat16}
    state = {n: torch.from_numpy(t.astype(np.float32)).to(types[dtype]) for n, t in tensors.items()}
    (tmp_path / "bin").mkdir()
    torch.save(state, tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "old").mkdir()
    torch.save(state, tmp_path / "old" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "bins").mkdir()
    weight_map = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(state)}
    for shard in set(weight_map.values()):
        torch.save({n: state[n] for n in state if weight_map[n] == shard}, tmp_path / "bins" / shard)
    (tmp_path / "bins" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 3
    assert max(file.stat().st_size for file in (tmp_path / "shards").glob("*.safetensors")) < 3000
    for layout in ("one", "shards", "bin", "old", "bins"):
        read = read_tensors(tmp_path / layout)
        assert set(read) == set(tensors) and len(read) == len(tensors)
        assert all(same(read[name], tensors[name]) and read.shapes[name] == tensors[name].shape for name in read)
    assert set(read_tensors(tmp_path / "one" / "model.safetensors")) == set(tensors)
    assert to_params(tensors, DENSE, dtype=np.float32)["head"]["kernel"].dtype == np.float32


def test_all_differences_are_listed_in_one_line():
    tensors = make_tensors(CONFIG)
    tensors["encoder.block.0.layer.0.SelfAttention.query.weight"] = tensors.pop(
        "encoder.block.0.layer.0.SelfAttention.q.weight"
    )
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1]
    del tensors["decoder.final_layer_norm.weight"]
    tensors["extra"] = np.zeros(3)
    with pytest.raises(InputError) as caught:
        to_params(tensors, CONFIG)
    message = str(caught.value)
    assert "lm_head.weight has shape (16, 6) in the checkpoint but shape (17, 6) in the configuration" in message
    assert "SelfAttention.q.weight (shape (8, 6)) is missing from the checkpoint (did you mean 'encoder" in message
    assert "decoder.final_layer_norm.weight (shape (6)) is missing" in message
    assert "extra (shape (3)) is unknown to the configuration" in message and "\n" not in message
    with pytest.raises(InputError, match="and 84 more"):
        to_params({}, DENSE)


def test_wrong_parameters_are_refused_before_anything_is_written(tmp_path):
    params = to_params(make_tensors(CONFIG), CONFIG)
    params["head"] = {"kernal": params["head"]["kernel"]}
    params["decoder"]["layers"]["mlp"]["wo"]["kernel"] = np.zeros((2, 10, 6), np.float32)
    with pytest.raises(InputError) as caught:
        write_safetensors(tmp_path / "m", params, CONFIG)
    message = str(caught.value)
    assert "head/kernel (shape (6, 17)) is missing from the parameters (did you mean 'head/kernal'?)" in message
    assert "decoder/layers/mlp/wo/kernel has shape (2, 10, 6) in the parameters but shape (3, 10, 6)" in message
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError):
        from_params(params, CONFIG)


def test_a_tied_embedding_must_be_the_shared_one_and_an_old_leftover_is_ignored():
    tensors = make_tensors(CONFIG)
    bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    extended = tensors | {name: tensors["shared.weight"].copy() for name in TIED} | {bias: np.zeros((32, 2))}
    assert same(to_params(extended, CONFIG)["embed"]["embedding"], tensors["shared.weight"])
    extended["decoder.embed_tokens.weight"][3, 2] += 1e-6
    with pytest.raises(InputError, match=r"decoder.embed_tokens.weight: differs from shared.weight"):
        to_params(extended, CONFIG)


def test_a_plain_mt5_becomes_either_retriever():
    plain = config_to_hf(CONFIG)
    del plain["retriever_layer"], plain["retriever_head"]
    plain |= {"num_heads": 8, "num_decoder_layers": None}
    kwargs = config_from_hf(plain)
    assert (kwargs["retriever"], kwargs["retriever_layer"], kwargs["retriever_head"]) == ("multi_vector", 2, 6)
    assert kwargs["num_decoder_layers"] == 5 and ModelConfig(**kwargs).retriever_head == 6
    assert config_from_hf(plain | {"num_heads": 6})["retriever_head"] == 5
    tensors = make_tensors(CONFIG)
    with pytest.raises(InputError, match="no dense retriever: ask for one newly initialised"):
        to_params(tensors, DENSE)
    new = missing_dense(tensors, DENSE)
    assert len(new) == 3 and not missing_dense(make_tensors(DENSE), DENSE) and not missing_dense(tensors, CONFIG)
    filled, drawn = with_missing_dense(tensors, DENSE, np.random.default_rng(0))
    params = to_params(filled, DENSE)
    assert drawn == new
    assert params["dense_head"]["query_proj"]["kernel"].shape == (6, 8)
    assert not np.array_equal(*(params["dense_head"][f"{p}_proj"]["kernel"] for p in ("query", "passage")))
    assert np.array_equal(params["dense_head"]["norm"]["scale"], np.ones(8))
    incomplete = make_tensors(DENSE)
    del incomplete[new[0]]
    with pytest.raises(InputError, match=r"query_proj.weight .* is missing"):
        to_params(with_missing_dense(incomplete, DENSE, np.random.default_rng(0))[0], DENSE)
    with pytest.raises(InputError, match='set retriever to "dense"'):
        to_params(make_tensors(DENSE), CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_kv": None}, "d_kv: no whole number"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj: is 'relu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: is true"),
    ],
)
def test_configurations_of_other_models_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        config_from_hf(config_to_hf(CONFIG) | change)


def test_layers_of_different_types_need_a_dtype():
    tensors = make_tensors(CONFIG)
    name = "decoder.block.1.layer.2.DenseReluDense.wo.weight"
    tensors[name] = tensors[name].astype(np.float16)
    with pytest.raises(InputError, match=r"wo.weight: is float16, other layers' are float32; ask for one dtype"):
        to_params(tensors, CONFIG)
    assert to_params(tensors, CONFIG, dtype=np.float32)["decoder"]["layers"]["mlp"]["wo"]["kernel"].dtype == np.float32


class Evil:
    """Runs code where it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.torch
def test_a_pickle_s_code_is_never_run(tmp_path):
    import torch

    mark = tmp_path / "mark"
    torch.save({"a": torch.zeros(2), "b": Evil(str(mark))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin: is not a whole file of tensors only .*state_dict"):
        read_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"b": Evil(str(mark))}))
    with pytest.raises(InputError, match="is not a whole file of tensors only"):
        read_tensors(tmp_path)
    assert not mark.exists()


@pytest.mark.torch
def test_bad_torch_files(tmp_path):
    import torch

    file = tmp_path / "pytorch_model.bin"
    for content, message in (
        ([torch.zeros(2)], "holds a list, not tensors by name"),
        ({"model": {"a": torch.zeros(2)}}, "model: is a dict, not a tensor; save its state_dict"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, "a: is of type torch.int64; supported: torch.float32"),
    ):
        torch.save(content, file)
        with pytest.raises(InputError, match=message):
            read_tensors(tmp_path)
    torch.save({"a": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(InputError, match="is not a whole file"):
        read_tensors(tmp_path)


def test_bad_safetensors_and_indexes(tmp_path):
    with pytest.raises(InputError, match=r"holds no weights; expected model.safetensors"):
        read_tensors(tmp_path)
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(100, np.float32)}, file)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"model.safetensors: is not a whole safetensors file"):
        read_tensors(tmp_path)
    safetensors.numpy.save_file({"a": np.zeros(3, np.int64)}, file)
    with pytest.raises(InputError, match="a: is of type I64; supported: F32"):
        read_tensors(tmp_path)
    file.unlink()
    index = tmp_path / "model.safetensors.index.json"
    safetensors.numpy.save_file({"alpha": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    safetensors.numpy.save_file({"alpha": np.zeros(3, np.float32)}, tmp_path / "y.safetensors")
    for content, message in (
        ("{}", "has no weight_map"),
        ("{", "not valid JSON"),
        ('{"weight_map": {"a": "z.safetensors"}}', "shard z.safetensors is missing"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "is not the name of a file beside it"),
        ('{"weight_map": {"alpa": "x.safetensors"}}', "alpa: is not in x.safetensors; did you mean 'alpha'"),
        ('{"weight_map": {"alpha": "x.safetensors", "b": "y.safetensors"}}', "alpha: is also in x.safetensors"),
    ):
        index.write_text(content)
        with pytest.raises(InputError, match=message):
            read_tensors(tmp_path)


def test_a_full_disk_leaves_the_old_folder(tmp_path):
    params = to_params(make_tensors(CONFIG), CONFIG)
    write_safetensors(tmp_path / "m", params, CONFIG)
    before = read_tensors(tmp_path / "m")["lm_head.weight"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"/m: could not be written \(.*free some space"):
            write_safetensors(tmp_path / "m", jax.tree.map(lambda x: x + 1, params), CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert same(read_tensors(tmp_path / "m")["lm_head.weight"], before)
