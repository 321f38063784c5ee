# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""T5X's native layout against a checkpoint that T5X wrote and the logits that T5X computed."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from damage import flipped_bits
from flax import serialization
from hf_tensors import CONFIG, DENSE, make_tensors, same

from class_jax.checkpoints import huggingface, t5x
from class_jax.checkpoints.tensor_files import TensorFiles
from class_jax.errors import InputError
from class_jax.models import ModelConfig, merge, model_graph

pytestmark = pytest.mark.core

TOLERANCE = 1e-4  # absolute, on logits of about 4
QUICK = {"xla_backend_optimization_level": 0}


def write(folder, config, **settings):
    tensors = TensorFiles.of(make_tensors(config))
    folder.mkdir()
    t5x.write_t5x(folder, tensors, config, **settings)
    return tensors


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Hundreds of tiny files need not reach the disk one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t5x, "_CONTEXT", ts.Context({"file_io_sync": False}))
        yield


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5x") / "m"
    return folder, write(folder, CONFIG)


@pytest.fixture
def written(once, tmp_path):
    """A copy of it to spoil: its folder and its tensors."""
    shutil.copytree(once[0], tmp_path / "m")
    return tmp_path / "m", once[1]


def files_under(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_t5x_s_logits_from_its_own_checkpoint(golden):
    """Plain T5 is CLASS with an empty passage: the whole row is the question's, which both halves of the encoder see."""
    config, tensors = t5x.read_t5x(golden / "t5x_mt5")
    params = jax.tree.map(jnp.asarray, huggingface.to_params(tensors, config))
    expected = np.load(golden / "t5x_mt5" / "expected.npz")
    ids, decoder_ids = expected["encoder_input_tokens"], expected["decoder_input_tokens"]
    B = len(ids)
    assert (decoder_ids[:, 0] == 0).all()

    @jax.jit
    def logits(params):
        model = merge(model_graph(config), params)
        questions = model.encode_questions(ids, (ids != 0).sum(-1))
        empty = model.encode_passages(jnp.zeros((B, 1), jnp.int32), jnp.zeros(B, jnp.int32))
        memory = model.read(questions, jax.tree.map(lambda x: x[:, None], empty))
        # Our decoder shifts its targets right by itself; what follows the last input is not seen.
        return model.decode(memory, jnp.pad(decoder_ids[:, 1:], ((0, 0), (0, 1))))[0]

    difference = np.abs(np.asarray(logits(params)) - expected["logits"]).max()
    assert difference <= TOLERANCE, f"logits differ by {difference:.1e}"


def test_sizes_are_those_of_the_arrays(golden):
    config, _ = t5x.read_t5x(golden / "t5x_mt5" / "checkpoint_0")
    sizes = dict(vocab_size=384, d_model=64, d_kv=16, d_ff=96, num_layers=4, num_decoder_layers=3, num_heads=8)
    assert config == ModelConfig(**sizes)


def test_what_is_written_is_what_t5x_wrote(golden, tmp_path):
    """Every file: arrays and their .zarray, the start of Adafactor's state, the index with all keys and chunks."""
    config, tensors = t5x.read_t5x(golden / "t5x_mt5")
    t5x.write_t5x(tmp_path, tensors, config)
    theirs, ours = files_under(golden / "t5x_mt5" / "checkpoint_0"), files_under(tmp_path / "checkpoint_0")
    assert set(ours) == set(theirs) and len(theirs) == 337
    assert [path for path in theirs if ours[path] != theirs[path]] == []
    again, back = t5x.read_t5x(tmp_path)
    assert again == config and all(same(back[name], tensors[name]) for name in tensors)


def test_dense_projections_are_beside_the_attention(tmp_path):
    tensors = write(tmp_path / "m", DENSE)
    again, back = t5x.read_t5x(tmp_path / "m")
    # config.json, as the reference has it, names no head of a dense retriever, which has none.
    assert dataclasses.replace(again, retriever_head=DENSE.retriever_head) == DENSE
    assert set(back) == set(tensors)
    assert all(same(np.ascontiguousarray(back[name]), tensors[name]) for name in tensors)


def test_bfloat16(tmp_path):
    tensors = write(tmp_path / "m", CONFIG, dtype=ml_dtypes.bfloat16)
    _, back = t5x.read_t5x(tmp_path / "m")
    name = "decoder.block.1.layer.1.EncDecAttention.o.weight"
    assert same(np.ascontiguousarray(back[name]), tensors[name].astype(ml_dtypes.bfloat16))


def test_large_arrays_are_cut_as_t5x_cuts_them(tmp_path, monkeypatch):
    assert t5x.chunk_shape((250112, 1024), 4) == [15632, 1024]
    assert t5x.chunk_shape((1024, 2816), 4) == [1024, 2816]
    assert t5x.chunk_shape((4, 6), 4) == [4, 6]
    monkeypatch.setattr(t5x, "_CHUNK_BYTES", 100)
    tensors = write(tmp_path / "m", CONFIG)
    folder = tmp_path / "m" / "checkpoint_0" / "target.token_embedder.embedding"
    assert json.loads((folder / ".zarray").read_text())["chunks"] == [1, 6]
    assert len(list(folder.iterdir())) == 18
    _, back = t5x.read_t5x(tmp_path / "m")
    assert same(back["shared.weight"], tensors["shared.weight"])
    (folder / "7.0").unlink()  # a missing chunk would be zeros
    (tmp_path / "m" / "digests.json").unlink()
    with pytest.raises(InputError, match=r"embedding/7.0: half a checkpoint: a chunk of this array is missing"):
        t5x.read_t5x(tmp_path / "m")


def test_adafactor_starts_as_in_t5x():
    """Matrices whose sides are both at least 128 are factored: rows by the shorter side, columns by the longer."""
    shapes = {part: start.shape for part, start in t5x._adafactor((512, 384)).items()}
    assert shapes == {"m": (1,), "v": (1,), "v_row": (384,), "v_col": (512,)}
    assert t5x._adafactor((512, 512))["v_col"].shape == (512,)
    assert t5x._adafactor((8, 512))["v"].shape == (8, 512)


def test_t5x_s_reader_finds_every_array_by_the_index(written):
    """Reads as T5X does: by the specification in the index, chunks and compressor left out."""
    folder, tensors = written
    step = folder / "checkpoint_0"
    index = serialization.msgpack_restore((step / "checkpoint").read_bytes())
    assert index["version"] == 3 and int(index["optimizer"]["state"]["step"]) == 0
    spec = index["optimizer"]["target"]["encoder"]["layers_1"]["attention"]["query"]["kernel"]
    assert spec["metadata"].pop("chunks") and spec["metadata"].pop("compressor")
    spec["kvstore"]["path"] = str(step / spec["kvstore"]["path"])
    read = ts.open(spec, open=True).result().read().result()
    assert same(read, np.ascontiguousarray(tensors["encoder.block.1.layer.0.SelfAttention.q.weight"].T))
    state = index["optimizer"]["state"]["param_states"]["decoder"]["decoder_norm"]["scale"]
    assert set(state) == {"m", "v", "v_col", "v_row"} and state["v"]["metadata"]["shape"] == [6]


def test_flipped_bits_are_refused(written):
    folder, _ = written
    files = [path for path in sorted((folder / "checkpoint_0").rglob("*")) if path.is_file()]
    for _ in flipped_bits(files, 60, seed=0):
        with pytest.raises(InputError, match="is damaged"):
            t5x.read_t5x(folder)
    assert len(t5x.read_t5x(folder)[1]) == len(make_tensors(CONFIG))


def test_an_array_s_own_digest_is_checked_when_it_is_read(written):
    folder, _ = written
    _, tensors = t5x.read_t5x(folder)
    step = folder / "checkpoint_0"
    shutil.copy(step / "target.encoder.encoder_norm.scale" / "0", step / "target.decoder.decoder_norm.scale" / "0")
    assert tensors["encoder.final_layer_norm.weight"].shape == (6,)
    with pytest.raises(InputError, match=r"target.decoder.decoder_norm.scale: is damaged"):
        tensors["decoder.final_layer_norm.weight"]


def test_half_a_checkpoint_and_other_models(written):
    folder, _ = written
    (folder / "digests.json").unlink()
    step = folder / "checkpoint_0"
    index = (step / "checkpoint").read_bytes()

    def refused(message, change=None):
        if change is not None:
            content = serialization.msgpack_restore(index)
            change(content["optimizer"]["target"])
            (step / "checkpoint").write_bytes(serialization.msgpack_serialize(content))
        with pytest.raises(InputError, match=message) as caught:
            t5x.read_t5x(folder)
        assert "\n" not in str(caught.value)

    def renamed(target):
        norms = target["encoder"]
        norms["encoder_nrm"] = norms.pop("encoder_norm")

    norm = step / "target.encoder.encoder_norm.scale"
    norm.rename(step / "target.encoder.encoder_nrm.scale")
    refused("encoder_norm.scale: half a checkpoint: this array is missing")
    refused(
        r"encoder/encoder_norm/scale \(shape \(6\)\) is missing .*did you mean 'encoder/encoder_nrm/scale'", renamed
    )
    (step / "target.encoder.encoder_nrm.scale").rename(norm)

    def shape(target):
        target["token_embedder"]["embedding"]["metadata"]["shape"] = [16, 6]

    refused(r"has shape \(17, 6\), but \(16, 6\) in the index", shape)
    refused("has scanned layers", lambda target: target["encoder"].update(layers={"mlp": np.zeros(2)}))
    refused("is a T5 1.0 model", lambda target: target["encoder"]["layers_0"]["mlp"].update(wi={"kernel": np.zeros(2)}))
    (step / "checkpoint").write_bytes(index[:-40])
    refused("is not the index of a T5X checkpoint")
    (step / "checkpoint").write_bytes(index)
    chunk = step / "target.decoder.decoder_norm.scale" / "0"
    chunk.write_bytes(chunk.read_bytes()[:15])
    with pytest.raises(InputError, match=r"decoder_norm.scale: can't be read"):
        t5x.read_t5x(folder)[1]["decoder.final_layer_norm.weight"]
    (step / "checkpoint").unlink()
    refused("half a checkpoint: its index is missing")


def test_the_newest_of_several_steps_is_read(golden, written):
    folder, _ = written
    shutil.copytree(golden / "t5x_mt5" / "checkpoint_0", folder / "checkpoint_12")
    for name in ("config.json", "digests.json"):
        (folder / name).unlink()
    assert t5x.read_t5x(folder)[0].num_layers == 4
    assert t5x.read_t5x(folder / "checkpoint_0")[0].num_layers == 5
