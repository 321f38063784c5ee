# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest
from stored_vectors import K, brute_force, made_passages, made_questions, write_vectors

from class_jax.errors import InputError
from class_jax.retrieval.index import open_index
from class_jax.retrieval.rescore import with_stored
from class_jax.retrieval.residual import Codec, ResidualIndex, ResidualSettings, build, build_residual
from class_jax.retrieval.residual.build import grow, question_tokens
from class_jax.retrieval.residual.importance import win_rates
from class_jax.retrieval.residual.kmeans import assign, kmeans
from class_jax.retrieval.residual.search import ranges

SETTINGS = ResidualSettings(bytes_per_vector=40, centroids=16, segment_passages=40)


@pytest.fixture(scope="module")
def passages():
    return made_passages(150)


@pytest.fixture(scope="module")
def store(tmp_path_factory, passages):
    return write_vectors(tmp_path_factory.mktemp("vectors") / "v", passages)


def trained(passages, questions=None, *, bits, centroids=16):
    """A codec whose residuals take `bits` a dimension; centroids and all else are fitted to the same passages."""
    vectors, lengths = np.concatenate(passages), np.array([len(p) for p in passages])
    return Codec.train(
        vectors, vectors, lengths, questions, centroids=centroids, share_out=lambda header, entries: bits * K / 8
    )


def encoded(codec, passages, questions=None):
    return codec.encode(np.concatenate(passages), np.array([len(p) for p in passages]), questions)


@pytest.fixture(scope="module")
def codec(passages):
    return trained(passages, bits=3)


def decoded(codec, rows):
    """Vectors of coded rows, by the definition: centroid + size * rotated residual, back from white coordinates."""
    found = []
    for j, coded in enumerate(rows):
        heads = coded[:, 0].astype(int) + (256 * coded[:, 1].astype(int) if codec.header_bytes > 1 else 0)
        centroids = codec.middle[heads % 16]  # 16 centroids: four bits, and the size in the four above
        bits, at = np.unpackbits(coded[:, codec.header_bytes :], axis=1, bitorder="little"), 0
        steps = [codec.steps[w, k] for k, w in enumerate(codec.widths[j])]
        along = np.zeros((len(coded), K), np.float32)
        for axis, width in enumerate(codec.widths[j].astype(int)):
            cells = bits[:, at : at + width] @ (1 << np.arange(width)) if width else 0
            along[:, axis] = (cells - (2**width - 1) / 2) * steps[axis]
            at += width
        low, high = np.log2(codec.sizes[j].astype(np.float64))
        sizes = 2 ** (low + max(high - low, 1e-3) * (heads // 16) / 15)
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
    codes, classes, rows, listed, error = encoded(codec, passages)
    assert [len(r) for r in rows] == np.bincount(classes, minlength=len(rows)).tolist()
    assert [r.shape[1] for r in rows] == [codec.header_bytes + int(bits.sum()) // 8 for bits in codec.widths]
    queries = made_questions()[0][0]
    white = codec.questions(queries)
    near = jnp.asarray(codec.centroids.astype(np.float32) @ white.T)
    squared = 0.0
    assert listed.all()  # no sample questions: no vector is left out
    for j, (coded, exact) in enumerate(zip(rows, decoded(codec, rows), strict=True)):
        found = codec.products(coded, j, *codec.weights(white)[j], near)
        np.testing.assert_allclose(found, exact @ queries.T, rtol=1e-3, atol=1e-4)
        squared += ((exact - vectors[classes == j]) ** 2).sum()
        np.testing.assert_array_equal(codec.heads(coded), codes[classes == j])
    np.testing.assert_allclose(error, squared, rtol=1e-3)
    assert squared < 0.05 * (vectors**2).sum()


def test_more_bits_less_error(passages):
    vectors, errors, sizes = np.concatenate(passages), [], []
    for bits in (0, 1, 2, 4, 8):
        made = trained(passages, bits=bits)
        _, _, rows, _, error = encoded(made, passages)
        errors.append(error)
        sizes.append(sum(r.nbytes for r in rows) / len(vectors) - made.header_bytes)
    assert all(b < a / 1.5 for a, b in itertools.pairwise(errors))
    # The bits are spent, and not more: within the byte that may be left over.
    np.testing.assert_array_less(np.array(sizes), np.array([0, 1, 2, 4, 8]) * K / 8 + 1e-6)
    np.testing.assert_array_less(np.array([0, 1, 2, 4, 8]) * K / 8 - 1.01, np.array(sizes))


def test_bits_go_where_questions_look(passages):
    rng = np.random.default_rng(4)
    vectors = np.concatenate(passages)
    questions = (rng.normal(size=(200, 1, K)) * np.geomspace(8, 0.05, K)).astype(np.float32)
    tokens = question_tokens(questions, np.ones((200, 1), bool))
    errors = []
    for given in (None, tokens):
        made = trained(passages, given, bits=2)
        _, classes, rows, _, _ = encoded(made, passages, given)
        order = np.argsort(classes, kind="stable")
        missed = np.concatenate(decoded(made, rows)) - vectors[order]
        errors.append(((missed @ questions[:, 0].T) ** 2).mean())
    assert errors[1] < 0.3 * errors[0]


def test_win_rates():
    passages, tokens = made_passages(40, seed=3), made_questions(90, seed=8)[0].reshape(-1, K)
    passages[7] = np.zeros((0, K), np.float32)
    lengths = np.array([len(p) for p in passages])
    found = np.split(win_rates(np.concatenate(passages), lengths, tokens), np.cumsum(lengths)[:-1])
    for passage, rates in zip(passages, found, strict=True):
        if len(passage):
            expected = np.bincount((tokens @ passage.T).argmax(1), minlength=len(passage)) / len(tokens)
            np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_bits_go_to_vectors_that_win():
    """Of two kinds of vectors of the same spread, MaxSim takes the one that is where questions are."""
    rng = np.random.default_rng(6)
    towards = np.eye(K)[0] * 6
    passages = [(rng.normal(size=(6, K)) + np.where(np.arange(6)[:, None] < 3, towards, -towards)) for _ in range(120)]
    passages = [p.astype(np.float32) for p in passages]
    questions = (rng.normal(size=(400, K)) * 0.3 + np.eye(K)[0]).astype(np.float32)
    errors = {}
    for given in (None, questions):
        made = trained(passages, given, bits=2)
        _, classes, rows, _, _ = encoded(made, passages, given)
        missed = np.empty((720, K))
        vectors = np.concatenate(passages)
        for j, found in enumerate(decoded(made, rows)):
            missed[classes == j] = found - vectors[classes == j]
        won = (np.arange(720) % 6) < 3
        errors[given is None] = [((missed[side] @ questions.T) ** 2).mean() for side in (won, ~won)]
    assert errors[False][0] < 0.4 * errors[True][0] and errors[False][1] > errors[True][1]
    # What never wins is in no list.
    listed = encoded(trained(passages, questions, bits=2), passages, questions).listed
    assert not listed[~won].any() and listed[won].mean() > 0.5, (listed[~won].mean(), listed[won].mean())


def test_the_bytes_asked_for_are_those_of_the_folder(tmp_path):
    store = write_vectors(tmp_path / "v", made_passages(1500, longest=30))
    for asked in (10, 12):
        settings = ResidualSettings(bytes_per_vector=asked, centroids=64)
        sums = build_residual(store, tmp_path / f"r{asked}", settings=settings).bytes_on_disk()
        files = [p for p in (tmp_path / f"r{asked}").rglob("*") if p.is_file()]
        assert sum(sums.values()) == sum(p.stat().st_size for p in files)
        assert 0.95 * asked < sum(sums.values()) / store.num_vectors <= asked
    with pytest.raises(InputError, match=r"bytes_per_vector: 2 bytes a vector don't hold .* which take \d"):
        build_residual(store, tmp_path / "few", settings=ResidualSettings(bytes_per_vector=2, centroids=64))


def test_search_scores_every_candidate(tmp_path, store, passages):
    """With all passages as candidates, the ranks are those of the coded vectors; with 8 bits, of the true ones."""
    vectors, mask = made_questions()
    index = build_residual(
        store, tmp_path / "r", settings=ResidualSettings(bytes_per_vector=60, centroids=16, segment_passages=40)
    )
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
    index = build_residual(store, tmp_path / "r", settings=ResidualSettings(bytes_per_vector=24, centroids=64))
    vectors, mask = made_questions(20)
    truth = brute_force(passages, vectors, mask)
    expected = np.argsort(-truth, axis=1)[:, :5]
    index.probes, index.candidates, index.exact, index.rescore = 8, 25, with_stored(store), 25
    rows, scores = index.search(vectors, mask, 5)
    found = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows.tolist(), expected.tolist(), strict=True)])
    assert found > 0.8  # 25 of 300 at random would hold 0.08
    np.testing.assert_allclose(scores, np.take_along_axis(truth, rows, 1), rtol=1e-4, atol=1e-4)


def test_opening_reads_only_the_manifest(tmp_path, store, monkeypatch):
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
    with pytest.raises(InputError, match=r"questions: the index was built with other sample questions; leave them out"):
        grow(index, write_vectors(tmp_path / "q", [*passages, passages[0]]), questions=np.ones((3, K), np.float32))
    other = [-p for p in passages]
    with pytest.raises(InputError, match="does not begin with the index's 150"):
        grow(index, write_vectors(tmp_path / "o", [*other, passages[0]]))


def test_a_killed_build_is_resumed(tmp_path, store, monkeypatch):
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


def test_a_full_disk_is_one_line_and_the_build_is_resumed(tmp_path, store):
    """The system itself refuses to write on: files may not grow beyond what a segment takes."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, most))
    try:
        with pytest.raises(InputError, match=r"could not be written .*; free some space"):
            build_residual(store, tmp_path / "r", settings=SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with pytest.raises(InputError, match="no index here"):
        open_index(tmp_path / "r")
    assert build_residual(store, tmp_path / "r", settings=SETTINGS).num_passages == 150
    assert open_index(tmp_path / "r", verify=True).num_passages == 150


def test_folder_of_another_index(tmp_path, store):
    build_residual(store, tmp_path / "r", settings=SETTINGS)
    assert isinstance(build_residual(store, tmp_path / "r", settings=SETTINGS), ResidualIndex)
    with pytest.raises(InputError, match="r: bytes_per_vector: "):
        build_residual(store, tmp_path / "r", settings=dataclasses.replace(SETTINGS, bytes_per_vector=41))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something else"):
        build_residual(store, tmp_path / "x", settings=SETTINGS)


def test_bad_input(tmp_path, store):
    with pytest.raises(InputError, match=r"bytes_per_vector: 0 is not within 1 to"):
        ResidualSettings(bytes_per_vector=0)
    with pytest.raises(InputError, match=r"questions: \(3, 3\) for vectors of width 8"):
        build_residual(store, tmp_path / "r", questions=np.eye(3))
    with pytest.raises(InputError, match="a passage has 3000 vectors"):
        build_residual(write_vectors(tmp_path / "l", [np.ones((3000, K), np.float32)]), tmp_path / "r")
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
