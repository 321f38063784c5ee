# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The public passage TSV: what is read, what is refused and how."""

import csv
import gzip
import hashlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.corpus.passages import MAX_ROW_BYTES, Passage, read_numbered, read_passages, write_passages
from class_jax.errors import InputError

pytestmark = pytest.mark.core

HEADER = "id\ttext\ttitle\n"
# As DPR's psgs_w100.tsv is written: texts quoted, quotes doubled, titles quoted where they need it.
DPR = (
    HEADER
    + '1\t"Aaron (; ""Ahärôn"") is a prophet"\tAaron\n'
    + '2\t"God at Sinai granted Aaron"\t"""Weird Al"" Yankovic"\n'
    + '3\tunquoted, with a "quote" inside\tÅland\n'
)


def refused(path, data, **kwargs):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError) as caught:
        list(read_passages(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "data", [DPR, DPR.removeprefix(HEADER), DPR.replace("\n", "\r\n"), "\ufeff" + DPR, DPR + "\n\n"]
)
def test_reads_the_public_layout(tmp_path, data):
    path = tmp_path / "p.tsv"
    path.write_bytes(data.encode())
    assert list(read_passages(path)) == [
        Passage("1", 'Aaron (; "Ahärôn") is a prophet', "Aaron"),
        Passage("2", "God at Sinai granted Aaron", '"Weird Al" Yankovic'),
        Passage("3", 'unquoted, with a "quote" inside', "Åland"),
    ]


def test_reads_gzip_and_shows_the_bytes_on_the_disk(tmp_path):
    path = tmp_path / "p.tsv.gz"
    path.write_bytes(gzip.compress(DPR.encode()))
    digest = hashlib.sha256()
    assert [line for line, _ in read_numbered(path, digest.update)] == [2, 3, 4]
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_titles_become_nfc_and_texts_stay(tmp_path):
    path = tmp_path / "p.tsv"
    decomposed = unicodedata.normalize("NFD", "Å가")
    path.write_text(f"7\t{decomposed} x\t{decomposed}\n", encoding="utf-8")
    assert list(read_passages(path)) == [Passage("7", decomposed + " x", "Å가")]


# A tab and a line end in one field can't be distinguished from a quote that swallowed rows: both sides refuse them.
_field = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).filter(
    lambda s: not ("\t" in s and ("\n" in s or "\r" in s))
)
_filled = _field.filter(str.strip)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.builds(Passage, _filled, _filled, _field), max_size=5), st.sampled_from([".tsv", ".tsv.gz"]))
def test_written_passages_are_read_back(tmp_path_factory, passages, suffix):
    path = tmp_path_factory.getbasetemp() / f"round_trip{suffix}"
    assert write_passages(path, iter(passages)) == len(passages)
    found = list(read_passages(path))
    assert found == [p._replace(title=unicodedata.normalize("NFC", p.title)) for p in passages]


def test_the_reference_reader_reads_what_is_written(tmp_path):
    path = tmp_path / "p.tsv"
    passage = Passage("a", 'says "x"\tand y', 'The "T"')
    write_passages(path, [passage])
    with open(path, encoding="utf-8") as file:
        assert list(csv.reader(file, delimiter="\t")) == [["id", "text", "title"], list(passage)]


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (DPR + "4\tonly two\n", 5, "2 columns, not 3"),
        (DPR + "4\n", 5, "1 column, not 3"),
        (DPR + "4\ta\tb\tc\n", 5, "4 columns, not 3"),
        (DPR + "\ttext\ttitle\n", 5, "empty id"),
        (DPR + "4\t  \ttitle\n", 5, "'4': empty text"),
        (DPR.encode() + b"4\tcaf\xe9\tt\n", 5, "not valid UTF-8 (byte 6"),
        (DPR + "4\ta\0b\tt\n", 5, "NUL"),
        (DPR + '4\t"never closed\tT\n5\tnext\tU\n', 5, "never closed"),
        (DPR + '4\ttext\t"Never closed\n', 5, "never closed"),
        (DPR + '4\t"never closed\tT\n5\t"it" is\tU\n6\tx\ty\n', 5, "never closed"),
        (DPR + '4\t"never closed\tT\n' + "5\tnext row\tU\n" * 12_000, 5, f"more than {MAX_ROW_BYTES} bytes"),
        ("id\ttitle\ttext\n1\tx\ty\n", 1, "columns are id title text"),
        ("1\tx" + "y" * MAX_ROW_BYTES, 1, f"more than {MAX_ROW_BYTES} bytes"),
        ('1\t"two\nlines"\tT\n2\tx\n', 3, "2 columns"),
    ],
)
def test_bad_rows_are_named_with_their_line(tmp_path, data, line, words):
    path = tmp_path / "p.tsv"
    message = refused(path, data)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_bad_rows_do_not_depend_on_the_csv_modules_global_limit(tmp_path):
    old = csv.field_size_limit(10)
    try:
        assert "field larger" in refused(tmp_path / "p.tsv", "1\ta text of more than ten\tx\n")
        assert csv.field_size_limit() == 10
    finally:
        csv.field_size_limit(old)


@pytest.mark.parametrize("name", ["absent.tsv", "absent.tsv.gz"])
def test_missing_file(tmp_path, name):
    with pytest.raises(InputError, match=name):
        next(read_passages(tmp_path / name))


def test_cut_off_gzip(tmp_path):
    data = gzip.compress(b"".join(hashlib.sha256(b"%d" % i).hexdigest().encode() + b"\tx\ty\n" for i in range(5000)))
    message = refused(tmp_path / "p.tsv.gz", data[: len(data) // 2])
    assert "fetch the file again" in message
    assert "Not a gzipped file" in refused(tmp_path / "q.tsv.gz", b"plain text")


@pytest.mark.parametrize(
    "passage",
    [
        Passage("", "x", "t"),
        Passage("1", " ", "t"),
        Passage("1", "a\0", "t"),
        Passage("1", "a\tb\nc", "t"),
        Passage("1", "x" * MAX_ROW_BYTES, "t"),
        Passage("1", "\ud800", "t"),
    ],
)
def test_refuses_to_write_what_could_not_be_read(tmp_path, passage):
    path = tmp_path / "p.tsv"
    path.write_text("old")
    with pytest.raises(InputError, match="passage"):
        write_passages(path, [Passage("0", "fine", "t"), passage])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
