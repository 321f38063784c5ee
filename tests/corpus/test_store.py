# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The token store: what is encoded is what is read, in bounded memory; damage is found and named."""

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.corpus import memmap_columns, store
from class_jax.corpus.inputs import encode_passages
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.store import TokenStore, build_store
from class_jax.corpus.vocabulary import Vocabulary, train_vocabulary
from class_jax.errors import InputError

pytestmark = pytest.mark.core

MAX_TOKENS = 48
_chance = random.Random(1)
_WORDS = ["".join(_chance.choices("abcdefghiklmnoprstuw", k=_chance.randint(3, 8))) for _ in range(120)]


def _passage(i):
    chance = random.Random(i)
    text = " ".join(chance.choices([*_WORDS, "река", "川", '"x"'], k=chance.randint(1, 40)))
    return Passage(f"{chance.choice('ab-é')}{i}", text, chance.choice(["", "Åland", "川"]))


PASSAGES = [_passage(i) for i in range(300)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    texts = [p.text for p in PASSAGES]
    return train_vocabulary(texts, tmp_path_factory.mktemp("vocabulary") / "spiece.model", 400)


@pytest.fixture(scope="module")
def tsv(tmp_path_factory):
    path = tmp_path_factory.mktemp("tsv") / "passages.tsv"
    write_passages(path, PASSAGES)
    return path


@pytest.fixture(scope="module")
def whole(tsv, vocabulary, tmp_path_factory):
    return build_store(tsv, vocabulary, tmp_path_factory.mktemp("store") / "store", MAX_TOKENS)


@pytest.fixture(scope="module")
def encoded(vocabulary):
    return encode_passages(vocabulary, PASSAGES, MAX_TOKENS)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole.folder, tmp_path / "copy")


def test_everything_is_read_back(whole, encoded, tsv, vocabulary):
    assert len(whole) == whole.num_passages == 300
    assert max(map(len, encoded)) == MAX_TOKENS and min(map(len, encoded)) < MAX_TOKENS
    for row, passage in enumerate(PASSAGES):
        assert whole.passage(row) == passage
        assert whole.id(row) == passage.id
        assert whole.row(passage.id) == row
        assert whole.tokens(row).tolist() == encoded[row]
    assert whole.lengths.tolist() == [len(ids) for ids in encoded]
    assert whole.manifest["tokens"] == sum(map(len, encoded))
    assert whole.manifest["vocabulary"] == {"fingerprint": vocabulary.fingerprint, "size": 400}
    assert whole.manifest["source"] == {"name": "passages.tsv", "sha256": hashlib.sha256(tsv.read_bytes()).hexdigest()}
    assert whole.manifest["files"]["tokens.bin"]["dtype"] == "<u2"
    assert isinstance(whole.lengths, np.memmap)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_random_batches_hold_what_was_encoded(whole, encoded, data):
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    rows = np.array(
        data.draw(st.lists(st.integers(0, 299), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    )
    rows = rows.reshape(shape).astype(np.int64)
    length = data.draw(st.none() | st.integers(1, 60))
    ids, lengths = whole.batch(rows, length)
    expected = [
        encoded[row] if length is None or len(encoded[row]) <= length else [*encoded[row][: length - 1], 1]
        for row in rows.ravel()
    ]
    width = length if length is not None else max(map(len, expected), default=0)
    assert ids.dtype == lengths.dtype == np.int32
    assert ids.shape == (*shape, width) and lengths.shape == tuple(shape)
    assert lengths.ravel().tolist() == [len(e) for e in expected]
    assert ids.reshape(len(expected), width).tolist() == [e + [0] * (width - len(e)) for e in expected]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 299), max_size=40))
def test_random_ids_find_their_rows(whole, rows):
    found = whole.rows(PASSAGES[row].id for row in rows)
    assert found.dtype == np.int64 and found.tolist() == rows


def test_cutting_equals_encoding_shorter(whole, vocabulary):
    ids, lengths = whole.batch(np.arange(300), 10)
    assert [ids[row, :n].tolist() for row, n in enumerate(lengths)] == encode_passages(vocabulary, PASSAGES, 10)


def test_unknown_ids_and_rows_are_named(whole):
    with pytest.raises(InputError, match="'nobody': unknown passage id"):
        whole.rows([PASSAGES[0].id, "nobody", PASSAGES[1].id])
    with pytest.raises(InputError, match="unknown passage id"):
        whole.row(PASSAGES[0].id + "0")
    with pytest.raises(InputError, match=r"'y{9999}': unknown passage id"):
        whole.rows([PASSAGES[0].id, "y" * 9999])
    assert whole.rows([]).shape == (0,)
    for row in (-1, 300):
        for call in (whole.id, whole.tokens, whole.passage, lambda row: whole.batch([[0, row]])):
            with pytest.raises(InputError, match=f"no row {row}; its rows are 0 to 299"):
                call(row)


def test_ids_with_colliding_hashes_are_kept_apart(tsv, vocabulary, tmp_path, monkeypatch):
    def weak(names):
        return np.array([len(name) for name in names], np.uint64)

    monkeypatch.setattr(memmap_columns, "hash_ids", weak)
    monkeypatch.setattr(store, "hash_ids", weak)
    built = build_store(tsv, vocabulary, tmp_path / "s", MAX_TOKENS)
    assert len(set(built._id_hashes.tolist())) < 6
    assert built.rows(p.id for p in PASSAGES).tolist() == list(range(300))
    for unknown in ("zz9", "a" * 50):
        with pytest.raises(InputError, match="unknown passage id"):
            built.row(unknown)
    write_passages(tmp_path / "d.tsv", [*PASSAGES, PASSAGES[100]])
    with pytest.raises(
        InputError, match=f"d.tsv:302: passage '{PASSAGES[100].id}': duplicate id, first seen on line 102"
    ):
        build_store(tmp_path / "d.tsv", vocabulary, tmp_path / "d", MAX_TOKENS)


def test_duplicates_are_seen_over_the_borders_of_the_sorted_blocks(vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(memmap_columns, "_BLOCK", 1)
    write_passages(tmp_path / "d.tsv", [*PASSAGES[:20], PASSAGES[7]])
    with pytest.raises(InputError, match=r"d\.tsv:22: .*duplicate id, first seen on line 9"):
        build_store(tmp_path / "d.tsv", vocabulary, tmp_path / "d", MAX_TOKENS)


def test_bytes_do_not_depend_on_processes_chunks_or_packing(whole, tsv, vocabulary, tmp_path, monkeypatch):
    packed = tmp_path / "passages.tsv.gz"
    packed.write_bytes(gzip.compress(tsv.read_bytes()))
    monkeypatch.setattr(store, "_CHUNK_ROWS", 17)
    built = build_store(packed, vocabulary, tmp_path / "s", MAX_TOKENS, processes=2)
    assert built.fingerprint == whole.fingerprint
    assert built.manifest["files"] == whole.manifest["files"]
    assert sorted(os.listdir(built.folder)) == sorted(os.listdir(whole.folder))
    assert built.manifest["source"]["name"] == "passages.tsv.gz"


def test_the_fingerprint_covers_content_and_settings(whole, tsv, vocabulary, tmp_path):
    def fingerprint(passages=PASSAGES, vocabulary=vocabulary, max_tokens=MAX_TOKENS):
        write_passages(tmp_path / "p.tsv", passages)
        return build_store(tmp_path / "p.tsv", vocabulary, tmp_path / "s", max_tokens).fingerprint

    assert fingerprint() == whole.fingerprint
    changed = [
        fingerprint(max_tokens=47),
        fingerprint(vocabulary=Vocabulary.load(vocabulary.path, size=401)),
        fingerprint([PASSAGES[1], PASSAGES[0], *PASSAGES[2:]]),
        fingerprint([PASSAGES[0]._replace(title="Other"), *PASSAGES[1:]]),
        fingerprint([*PASSAGES[:-1], PASSAGES[-1]._replace(id="new")]),
    ]
    assert len({whole.fingerprint, *changed}) == 6


def test_large_vocabularies_are_stored_wide(tsv, vocabulary, tmp_path, encoded):
    wide = Vocabulary.load(vocabulary.path, size=250_112)
    built = build_store(tsv, wide, tmp_path / "s", MAX_TOKENS)
    assert built.manifest["files"]["tokens.bin"]["dtype"] == "<i4"
    assert built.tokens(5).tolist() == encoded[5]


def test_all_titles_empty(vocabulary, tmp_path):
    write_passages(tmp_path / "p.tsv", [Passage("1", "text", "")])
    built = build_store(tmp_path / "p.tsv", vocabulary, tmp_path / "s")
    assert built.passage(0) == Passage("1", "text", "")
    assert TokenStore.open(built.folder, verify=True).row("1") == 0


def test_an_older_store_is_replaced_and_nothing_else(tsv, vocabulary, tmp_path):
    folder = tmp_path / "s"
    write_passages(tmp_path / "p.tsv", PASSAGES[:10])
    assert build_store(tsv, vocabulary, folder).num_passages == 300
    assert build_store(tmp_path / "p.tsv", vocabulary, folder).num_passages == 10
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a token store"):
        build_store(tsv, vocabulary, home)
    assert (home / "thesis.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "p.tsv", "s"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("id\ttext\ttitle\n", "p.tsv: no passages"),
        ("", "p.tsv: no passages"),
        ("1\tx\ty\n2\tx\ty\n1\tz\ty\n", "p.tsv:3: passage '1': duplicate id, first seen on line 1"),
        ("1\tx\ty\n2\tx\n", "p.tsv:2: 2 columns"),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_bad_passages_leave_the_old_store(vocabulary, tmp_path, data, words, processes):
    folder, path = tmp_path / "s", tmp_path / "p.tsv"
    write_passages(path, PASSAGES[:3])
    old = build_store(path, vocabulary, folder)
    path.write_text(data)
    with pytest.raises(InputError, match=words):
        build_store(path, vocabulary, folder, processes=processes)
    assert TokenStore.open(folder, vocabulary, verify=True).fingerprint == old.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.tsv", "s"]


def test_a_full_disk_leaves_nothing(tsv, vocabulary, tmp_path, monkeypatch):
    def full(self, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memmap_columns.MemmapColumn, "append", full)
    with pytest.raises(InputError, match=r"could not be written \(No space left on device\)"):
        build_store(tsv, vocabulary, tmp_path / "s")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tokens.bin", "lengths.bin", "text_offsets.bin", "id_rows.bin", "titles.bin"])
def test_a_truncated_store_is_refused(copy, name):
    path = copy / name
    size = path.stat().st_size
    os.truncate(path, size - 3)
    with pytest.raises(
        InputError, match=f"{name}: truncated: {size - 3} bytes, not {size}; build the token store again"
    ):
        TokenStore.open(copy)


def test_other_damage_is_refused(copy, whole):
    (copy / "ids.bin").unlink()
    with pytest.raises(InputError, match=r"ids\.bin: missing"):
        TokenStore.open(copy)
    (copy / "ids.bin").write_bytes((whole.folder / "ids.bin").read_bytes() + b"x")
    with pytest.raises(InputError, match=r"ids\.bin: too long"):
        TokenStore.open(copy)
    with pytest.raises(InputError, match="no token store here"):
        TokenStore.open(copy.parent)


@pytest.mark.parametrize("name", ["tokens.bin", "texts.bin", "id_hashes.bin"])
def test_a_flipped_bit_is_found_when_verifying(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 4
    (copy / name).write_bytes(data)
    TokenStore.open(copy)
    with pytest.raises(InputError, match=f"{name}: damaged"):
        TokenStore.open(copy, verify=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(max_tokens=99), "the manifest was changed"),
        (dict(version=99), "format version 99, not 1"),
        (dict(format="other"), "not a token store's manifest"),
    ],
)
def test_an_edited_manifest_is_refused(copy, change, words):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=words):
        TokenStore.open(copy)


def test_another_vocabulary_is_refused_with_both_fingerprints(whole, tmp_path, vocabulary):
    assert TokenStore.open(whole.folder, vocabulary).fingerprint == whole.fingerprint
    other = train_vocabulary([p.text for p in PASSAGES[:250]], tmp_path / "o.model", 390)
    with pytest.raises(InputError) as caught:
        TokenStore.open(whole.folder, other)
    assert vocabulary.fingerprint in str(caught.value) and other.fingerprint in str(caught.value)


_MEASURE = """
import resource, sys
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary
model, small, large, folder = sys.argv[1:]
vocabulary = Vocabulary.load(model)
def peak(path):
    store = build_store(path, vocabulary, folder, 200, processes=1)
    return store.num_passages, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(*peak(small), *peak(large))
"""


def test_memory_does_not_grow_with_the_corpus(vocabulary, tmp_path):
    text = " ".join(_WORDS * 2)
    for name, count in (("small", 4_000), ("large", 20_000)):
        rows = (Passage(f"{name}{i}", f"{i} {text}", "T") for i in range(count))
        write_passages(tmp_path / f"{name}.tsv", rows)
    size = (tmp_path / "large.tsv").stat().st_size
    command = [
        sys.executable,
        "-c",
        _MEASURE,
        vocabulary.path,
        tmp_path / "small.tsv",
        tmp_path / "large.tsv",
        tmp_path / "s",
    ]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    small, before, large, after = map(int, done.stdout.split())
    assert (small, large) == (4_000, 20_000)
    # A few buffers, and the id table's 16 bytes a passage; the corpus itself is many times those.
    assert after - before < size // 4
