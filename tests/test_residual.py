# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_index import K, brute_force, made_passages, made_questions, write_vectors

from class_jax.errors import InputError
from class_jax.retrieval.index import open_index
from class_jax.retrieval.rescore import with_stored
from class_jax.retrieval.residual import Codec, ResidualIndex, ResidualSettings, build, build_residual
from class_jax.retrieval.residual.build import grow, question_moment
from class_jax.retrieval.residual.codec import HEADER_BYTES, products
from class_jax.retrieval.residual.kmeans import assign, kmeans
from class_jax.retrieval.residual.search import ranges

SETTINGS = ResidualSettings(bits=3, centroids=16, segment_passages=40)


@pytest.fixture(scope="module")
def passages():
    return made_passages(150)


@pytest.fixture(scope="module")
def store(tmp_path_factory, passages):
    return write_vectors(tmp_path_factory.mktemp("vectors") / "v", passages)


@pytest.fixture(scope="module")
def codec(passages):
    return Codec.train(np.concatenate(passages), None, centroids=16, bits=3)


def decoded(codec, rows):
    """Vectors of coded rows, by the definition: centroid + size * rotated residual, back from white coordinates."""
    found = []
    for j, coded in enumerate(rows):
        centroids = codec.centroids.astype(np.float32)[coded[:, 0].astype(int) + 256 * coded[:, 1].astype(int)]
        bits, at = np.unpackbits(coded[:, HEADER_BYTES:], axis=1, bitorder="little"), 0
        steps = codec._steps(j)
        along = np.zeros((len(coded), K), np.float32)
        for axis, width in enumerate(codec.widths[j].astype(int)):
            cells = bits[:, at : at + width] @ (1 << np.arange(width)) if width else 0
            along[:, axis] = (cells - (2**width - 1) / 2) * steps[axis]
            at += width
        sizes = codec.size_table()[j][coded[:, 2]]
        found.append((centroids + sizes[:, None] * (along @ codec.rotation.T)) @ np.linalg.inv(codec.transform))
    return found


def test_kmeans_finds_clusters():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(6, 3)) * 20
    vectors = (middles[rng.integers(0, 6, 400)] + rng.normal(size=(400, 3)) * 0.1).astype(np.float32)
    found = kmeans(vectors, 12)
    assert np.linalg.norm(vectors - found[assign(vectors, found)], axis=1).max() < 1
    distances = ((vectors[:, None] - found) ** 2).sum(-1)
    np.testing.assert_array_equal(assign(vectors, found), distances.argmin(1))
    assert len(kmeans(vectors[:5], 12)) == 5


def test_products_are_those_of_the_decoded_vectors(codec, passages):
    vectors = np.concatenate(passages)
    codes, classes, rows, error = codec.encode(vectors)
    assert [len(r) for r in rows] == np.bincount(classes, minlength=len(rows)).tolist()
    assert [r.shape[1] for r in rows] == codec.row_bytes
    queries = made_questions()[0][0]
    white = codec.questions(queries)
    near = jnp.asarray(codec.centroids.astype(np.float32) @ white.T)
    squared = 0.0
    for j, (coded, exact) in enumerate(zip(rows, decoded(codec, rows), strict=True)):
        found = products(coded, *codec.weights(white)[j], codec.size_table()[j], near)
        np.testing.assert_allclose(found, exact @ queries.T, rtol=1e-3, atol=1e-4)
        squared += ((exact - vectors[classes == j]) ** 2).sum()
        heads = coded[:, 0].astype(int) + 256 * coded[:, 1].astype(int)
        np.testing.assert_array_equal(heads, codes[classes == j])
    np.testing.assert_allclose(error, squared, rtol=1e-3)
    assert squared < 0.05 * (vectors**2).sum()


def test_more_bits_less_error(passages):
    vectors, errors, sizes = np.concatenate(passages), [], []
    for bits in (0, 1, 2, 4, 8):
        made = Codec.train(vectors, None, centroids=16, bits=bits)
        *_, rows, error = made.encode(vectors)
        errors.append(error)
        sizes.append(sum(r.nbytes for r in rows) / len(vectors) - HEADER_BYTES)
    assert all(b < a / 1.5 for a, b in itertools.pairwise(errors))
    # The bits are spent, and not more: within the byte that may be left over.
    np.testing.assert_array_less(np.array(sizes), np.array([0, 1, 2, 4, 8]) * K / 8 + 1e-6)
    np.testing.assert_array_less(np.array([0, 1, 2, 4, 8]) * K / 8 - 1.01, np.array(sizes))


def test_bits_go_where_questions_look(passages):
    rng = np.random.default_rng(4)
    vectors = np.concatenate(passages)
    questions = (rng.normal(size=(200, 1, K)) * np.geomspace(8, 0.05, K)).astype(np.float32)
    moment = question_moment(questions, np.ones((200, 1), bool))
    np.testing.assert_allclose(moment, (questions[:, 0].T @ questions[:, 0]) / 200, rtol=1e-4)
    errors = []
    for given in (None, moment):
        made = Codec.train(vectors, given, centroids=16, bits=2)
        _, classes, rows, _ = made.encode(vectors)
        order = np.argsort(classes, kind="stable")
        missed = np.concatenate(decoded(made, rows)) - vectors[order]
        errors.append(((missed @ questions[:, 0].T) ** 2).mean())
    assert errors[1] < 0.3 * errors[0]


def test_search_scores_every_candidate(tmp_path, store, passages):
    """With all passages as candidates, the ranks are those of the coded vectors; with 8 bits, of the true ones."""
    vectors, mask = made_questions()
    index = build_residual(store, tmp_path / "r", settings=ResidualSettings(bits=8, centroids=16, segment_passages=40))
    assert len(index.manifest["segments"]) == 4 and open_index(tmp_path / "r", verify=True).kind == "residual"
    rows, scores = index.search(vectors, mask, 10)
    expected = brute_force(passages, vectors, mask)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), scores, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :10], rtol=0.02, atol=0.02)
    assert (expected < 0).any() and (np.diff(scores) <= 0).all()
    rows, scores = index.search(vectors, mask, len(passages) + 3)
    assert (np.sort(rows[:, :-3], axis=1) == np.arange(len(passages))).all()
    assert (rows[:, -3:] == -1).all() and np.isneginf(scores[:, -3:]).all()


def test_candidates_by_centroids(tmp_path):
    """Where tokens resemble one another, as words do, few candidates hold the best; exact scores then order them."""
    rng = np.random.default_rng(5)
    words = np.concatenate(made_passages(40, seed=2))[:64]
    passages = [words[rng.integers(0, 64, rng.integers(2, 9))] for _ in range(300)]
    passages = [(p + rng.normal(size=p.shape) * 0.1).astype(np.float32) for p in passages]
    store = write_vectors(tmp_path / "v", passages)
    index = build_residual(store, tmp_path / "r", settings=ResidualSettings(bits=3, centroids=64))
    vectors, mask = made_questions(20)
    truth = brute_force(passages, vectors, mask)
    expected = np.argsort(-truth, axis=1)[:, :5]
    index.probes, index.candidates, index.exact, index.rescore = 8, 25, with_stored(store), 25
    rows, scores = index.search(vectors, mask, 5)
    found = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows.tolist(), expected.tolist(), strict=True)])
    assert found > 0.8  # 25 of 300 at random would hold 0.08
    np.testing.assert_allclose(scores, np.take_along_axis(truth, rows, 1), rtol=1e-4, atol=1e-4)


def test_bytes_are_all_counted(tmp_path, store):
    index = build_residual(store, tmp_path / "r", settings=SETTINGS)
    files = [p for p in (tmp_path / "r").rglob("*") if p.is_file()]
    assert sum(index.bytes_on_disk().values()) == sum(p.stat().st_size for p in files)
    assert index.bytes_on_disk()["vectors"] / store.num_vectors <= HEADER_BYTES + 3 * K / 8
    assert index.bytes_on_disk()["padding"] < 64 * 9 * 4


def test_opening_reads_the_manifest_alone(tmp_path, store, monkeypatch):
    build_residual(store, tmp_path / "r", settings=SETTINGS)
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setattr(np, "memmap", None)
    monkeypatch.setattr(np, "fromfile", None)
    assert open_index(tmp_path / "r").num_passages == 150


def test_delete(tmp_path, store):
    vectors, mask = made_questions()
    index = build_residual(store, tmp_path / "r", settings=SETTINGS)
    gone = np.unique(index.search(vectors, mask, 2)[0])
    index.delete(gone)
    for again in (index, open_index(tmp_path / "r", verify=True)):
        rows, _ = again.search(vectors, mask, 150)
        assert not np.isin(rows, gone).any() and ((rows >= 0).sum(1) == 150 - len(gone)).all()


def test_grow(tmp_path, passages, store):
    more = [*passages, *made_passages(30, seed=9)]
    index = build_residual(store, tmp_path / "r", settings=SETTINGS)
    index.delete(np.array([3]))
    grown = grow(index, write_vectors(tmp_path / "v2", more, corpus="d" * 64))
    assert grown.num_passages == 180 and grown.corpus == "d" * 64
    vectors, mask = made_questions()
    rows, scores = open_index(tmp_path / "r", verify=True).search(vectors, mask, 180)
    assert (np.sort(rows[:, :179]) == np.delete(np.arange(180), 3)).all() and (rows[:, 179] == -1).all()
    expected = np.take_along_axis(brute_force(more, vectors, mask), rows[:, :179], 1)
    assert np.corrcoef(scores[:, :179].ravel(), expected.ravel())[0, 1] > 0.98
    assert not list((tmp_path / "r" / "segments").glob("*.json"))
    assert {s["first"] for s in grown.manifest["segments"]} == {0, 40, 80, 120, 150}


def test_grow_refuses_other_corpora(tmp_path, passages, store):
    index = build_residual(store, tmp_path / "r", settings=SETTINGS)
    with pytest.raises(InputError, match="other weights"):
        grow(index, write_vectors(tmp_path / "w", passages, model="x"))
    turned = [*reversed(passages), passages[0]]
    with pytest.raises(InputError, match="does not begin with the index's 150"):
        grow(index, write_vectors(tmp_path / "t", turned))
    other = [-p for p in passages]
    with pytest.raises(InputError, match="does not begin with the index's 150"):
        grow(index, write_vectors(tmp_path / "o", [*other, passages[0]]))


def test_killed_build_goes_on(tmp_path, store, monkeypatch):
    whole = build_residual(store, tmp_path / "whole", settings=SETTINGS)
    write, written = build._write_segment, []

    def killed(path, sections):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, sections)

    monkeypatch.setattr(build, "_write_segment", killed)
    with pytest.raises(KeyboardInterrupt):
        build_residual(store, tmp_path / "r", settings=SETTINGS)
    with pytest.raises(InputError, match="no index here"):
        open_index(tmp_path / "r")
    (tmp_path / "r" / "segments" / ".00002.bin.0123abcd.tmp").write_bytes(b"written when the power went")
    monkeypatch.setattr(build, "_write_segment", lambda *a: (written.append(a[0].name), write(*a))[1])
    monkeypatch.setattr(Codec, "train", None)  # the centroids are kept
    again = build_residual(store, tmp_path / "r", settings=SETTINGS)
    assert written == ["00000.bin", "00001.bin", "00002.bin", "00003.bin"]
    assert again.manifest["files"] == whole.manifest["files"]
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["codec.npz", "manifest.json", "segments"]
    assert len(list((tmp_path / "r" / "segments").iterdir())) == 4


def test_folder_of_another_index(tmp_path, store):
    build_residual(store, tmp_path / "r", settings=SETTINGS)
    assert isinstance(build_residual(store, tmp_path / "r", settings=SETTINGS), ResidualIndex)
    with pytest.raises(InputError, match="bits: the index there is of other vectors or settings"):
        build_residual(store, tmp_path / "r", settings=ResidualSettings(bits=2, centroids=16, segment_passages=40))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something else"):
        build_residual(store, tmp_path / "x", settings=SETTINGS)


def test_bad_input(tmp_path, store):
    with pytest.raises(InputError, match=r"bits: 9 is not within 0 to 8"):
        ResidualSettings(bits=9)
    with pytest.raises(InputError, match="moment"):
        build_residual(store, tmp_path / "r", moment=np.eye(3))
    dense = write_vectors(tmp_path / "d", made_passages(5, longest=1), retriever="dense")
    with pytest.raises(InputError, match="a residual index is of token vectors"):
        build_residual(dense, tmp_path / "r")
    build_residual(store, tmp_path / "r", settings=SETTINGS)
    file = tmp_path / "r" / "segments" / "00001.bin"
    data = bytearray(file.read_bytes())
    data[100] ^= 4
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"00001.bin: damaged"):
        open_index(tmp_path / "r", verify=True)
    (tmp_path / "r" / "codec.npz").write_bytes(
        b"x" * json.loads((tmp_path / "r/manifest.json").read_text())["files"]["codec.npz"]["bytes"]
    )
    with pytest.raises(InputError, match="not the codec"):
        open_index(tmp_path / "r").search(*made_questions(), 5)


def test_ranges_of_nothing():
    assert ranges(np.array([3, 5, 9]), np.array([3, 7, 9])).tolist() == [5, 6]
    assert not len(ranges(np.zeros(0, int), np.zeros(0, int)))
