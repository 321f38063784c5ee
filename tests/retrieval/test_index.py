# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from stored_vectors import K, brute_force, made_passages, made_questions, write_vectors

from class_jax.common.files import write_json
from class_jax.errors import InputError
from class_jax.retrieval import index as indexes
from class_jax.retrieval.index import Index, check_corpus, check_model, open_index
from class_jax.retrieval.rescore import with_stored
from class_jax.retrieval.vectors import ExactIndex, VectorStore


@pytest.fixture
def passages():
    return made_passages()


@pytest.fixture
def folder(tmp_path, passages):
    write_vectors(tmp_path / "v", passages)
    return tmp_path / "v"


def test_exact_equals_brute_force(folder, passages):
    vectors, mask = made_questions()
    found = open_index(folder)
    assert isinstance(found, Index) and isinstance(found, ExactIndex)
    vectors[~mask] = np.nan  # padding may hold anything
    rows, scores = found.search(vectors, mask, 20)
    expected = brute_force(passages, vectors, mask)
    assert (expected < 0).any() and rows.dtype == np.int64 and scores.dtype == np.float32
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :20])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :20], rtol=1e-5, atol=1e-5)


def test_batches_and_chunks_change_nothing(folder, monkeypatch):
    vectors, mask = made_questions()
    rows, scores = open_index(folder).search(vectors, mask, 20)
    from class_jax.retrieval import vectors as module

    monkeypatch.setattr(module, "_CHUNK_BYTES_CPU", 4 * 16 * 5 * 12 * 2)
    few = open_index(folder).search(vectors, mask, 20, batch_passages=16)
    np.testing.assert_array_equal(few[0], rows)
    np.testing.assert_allclose(few[1], scores, rtol=1e-5, atol=1e-5)


def test_more_than_there_are(folder, passages):
    vectors, mask = made_questions(2)
    rows, scores = open_index(folder).search(vectors, mask, len(passages) + 5)
    assert (np.sort(rows[:, : len(passages)], axis=1) == np.arange(len(passages))).all()
    assert (rows[:, len(passages) :] == -1).all() and np.isneginf(scores[:, len(passages) :]).all()


def test_dense(tmp_path):
    rng = np.random.default_rng(3)
    passages = [rng.normal(size=(1, K)) for _ in range(50)]
    write_vectors(tmp_path / "v", passages, retriever="dense")
    questions = rng.normal(size=(4, K)).astype(np.float32)
    rows, scores = open_index(tmp_path / "v").search(questions, None, 6)
    expected = questions @ np.concatenate(passages).T
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :6])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2), ("int8", 1e-2)])
def test_types_on_the_disk(tmp_path, passages, dtype, tolerance):
    store = write_vectors(tmp_path / dtype, passages, dtype=dtype)
    whole = np.concatenate(passages)
    error = np.abs(store.read(0, len(passages)) - whole).max(axis=1) / np.abs(whole).max(axis=1)
    assert 0 < error.max() < tolerance
    vectors, mask = made_questions(3)
    _, scores = ExactIndex(store).search(vectors, mask, 5)
    np.testing.assert_allclose(scores, -np.sort(-brute_force(passages, vectors, mask))[:, :5], rtol=5 * tolerance)


def test_reading_over_parts(folder, passages):
    store = VectorStore.open(folder)
    np.testing.assert_array_equal(store.read(30, 70), np.concatenate(passages[30:70]))
    rows = np.array([3, 31, 32, 89])
    padded = store.padded(rows, 12, 6)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(padded.vectors[i][padded.mask[i]], passages[row])
    assert not padded.mask[4:].any()
    np.testing.assert_array_equal(np.concatenate([b for *_, b in store.blocks(17)]), np.concatenate(passages))


def test_rescoring_with_stored_vectors(folder, passages):
    vectors, mask = made_questions(3)
    rows = np.array([40, 2, 88, 31])
    for question, real in zip(vectors, mask, strict=True):
        expected = [(question[real] @ passages[row].T).max(1).sum() for row in rows]
        np.testing.assert_allclose(with_stored(VectorStore.open(folder))(question[real], rows), expected, rtol=1e-5)


def test_deleted_passages_are_never_returned(folder, passages):
    vectors, mask = made_questions()
    found = open_index(folder)
    before, _ = found.search(vectors, mask, 3)
    gone = np.unique(before[:, 0])
    found.delete(gone[:1])
    found.delete(gone[1:])
    for again in (found, open_index(folder, verify=True)):
        rows, _ = again.search(vectors, mask, len(passages))
        assert not np.isin(rows, gone).any() and (rows >= 0).sum() == len(vectors) * (len(passages) - len(gone))
    assert len(list(folder.glob("deleted-*"))) == 1
    with pytest.raises(InputError, match="rows are 0 to 89"):
        found.delete(np.array([90]))


def test_opening_reads_only_the_manifest(folder, monkeypatch):
    (folder / "parts" / "00000.vectors").chmod(0)
    monkeypatch.setattr(np, "memmap", None)
    assert open_index(folder).num_passages == 90


def test_checks(folder):
    found = open_index(folder)
    check_model(found, "m" * 64)
    check_model(found, "other", allow_other=True)
    with pytest.raises(InputError, match=r"weights mmmmmmmmmmmm, not with other;.*--allow-other-model"):
        check_model(found, "other")
    with pytest.raises(InputError, match="corpus cccccccccccc, not of other"):
        check_corpus(found, "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, m: (v[..., :4], m, 1), r"\[7, 5, 4\] for an index of \[B, Q, 8\]"),
        (lambda v, m: (v[:, 0], m, 1), r"\[7, 8\] for an index"),
        (lambda v, m: (v, m[:, :2], 1), r"a mask \[7, 2\]"),
        (lambda v, m: (v * np.nan, m, 1), "question 0: the question's vectors are not finite"),
        (lambda v, m: (v, m, 0), "0 passages"),
    ],
)
def test_bad_questions(folder, change, message):
    with pytest.raises(InputError, match=message):
        open_index(folder).search(*change(*made_questions()))


def test_bad_stored_vector(tmp_path, passages):
    passages[50][0, 2] = np.nan
    write_vectors(tmp_path / "v", passages)
    with pytest.raises(InputError, match="a stored vector is not finite"):
        open_index(tmp_path / "v").search(*made_questions(), 5)


def test_damaged_files(folder):
    file = folder / "parts" / "00001.vectors"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    open_index(folder)
    with pytest.raises(InputError, match=r"00001.vectors: damaged"):
        open_index(folder, verify=True)
    file.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=f"{len(whole) - 1} bytes, not {len(whole)}"):
        open_index(folder)
    file.unlink()
    with pytest.raises(InputError, match="missing from the index"):
        open_index(folder)


def test_damaged_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for change, message in (
        ({"passages": 89}, "does not fit its own digest"),
        ({"format": "else"}, "not an index"),
        ({"version": 9}, "version 9"),
    ):
        write_json(folder / "manifest.json", manifest | change)
        with pytest.raises(InputError, match=message):
            open_index(folder)
    indexes.write_manifest(folder, {k: v for k, v in manifest.items() if k != "fingerprint"} | {"kind": "exakt"})
    with pytest.raises(InputError, match="did you mean 'exact'"):
        open_index(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"no index here; let `class-jax embed` finish"):
        open_index(folder)


@pytest.mark.tensorflow
@pytest.mark.parametrize("retriever", ["multi_vector", "dense"])
def test_scann_kind(tmp_path, retriever):
    pytest.importorskip("scann")
    from class_jax.retrieval.scann.kind import build_scann

    passages = made_passages(longest=1 if retriever == "dense" else 12)
    store = write_vectors(tmp_path / "v", passages, retriever=retriever)
    made = build_scann(store, tmp_path / "s", shard_vectors=60)
    assert len(made.manifest["shards"]) > 1
    found = open_index(tmp_path / "s", verify=True)
    vectors, mask = made_questions()
    if retriever == "dense":
        vectors, mask = vectors[:, 0], None
    rows, scores = found.search(vectors, mask, 10)
    exact_rows, exact_scores = open_index(tmp_path / "v").search(vectors, mask, 10)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, rtol=1e-4, atol=1e-4)
    found.delete(exact_rows[:, 0])
    assert not np.isin(open_index(tmp_path / "s").search(vectors, mask, 10)[0], exact_rows[:, 0]).any()
