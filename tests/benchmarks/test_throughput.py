# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""benchmarks/throughput.py and records.py: every part is measured on made data, and files are compared by name."""

import argparse
import json
import sys
import time
from pathlib import Path

import pytest

from class_jax.errors import InputError
from class_jax.models import ModelConfig
from class_jax.planning import flops, sizes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import records
import throughput

CONFIG = ModelConfig(
    vocab_size=1000, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2, retriever_head=1
)


@pytest.fixture(scope="module")
def measured():
    """All parts on 40 passages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "model_config", lambda size: CONFIG)
        given = "--corpus 40 --questions 12 --batch 4 --passages 5 --encode-batch 16 --repeats 1 --peak-tflops 0.5"
        arguments = [*given.split(), "--step-seconds", "0.01", "--idle-steps", "2"]
        yield throughput.measure(throughput.parser().parse_args(arguments))


def test_every_part_is_measured(measured):
    rows = {" ".join(v for v in row.values() if isinstance(v, str)): row for row in measured["throughput"]}
    assert set(rows) == {"encode", "feed end_to_end", "feed stage1", "refresh exact", "search exact"}
    encode = rows["encode"]
    assert encode["passages_per_second"] == pytest.approx(40 / encode["seconds"])
    assert encode["tokens_per_second"] == pytest.approx(encode["passages_per_second"] * encode["tokens"])
    assert 100 < encode["tokens"] <= 200
    assert encode["mfu"] == pytest.approx(encode["flops"] / encode["seconds"] / 0.5e12)
    assert rows["refresh exact"]["questions_per_second"] == pytest.approx(12 / rows["refresh exact"]["seconds"])
    assert 0 <= rows["feed stage1"]["idle"] < 1
    assert measured["devices"]["platform"] == "cpu"
    json.dumps(measured)


def test_flops_of_encoding_are_those_of_the_layers_below_b(measured):
    """One layer, and the keys of one head of the next: three batches of 16 rows, of 200 tokens all."""
    encode = measured["throughput"][0]
    D, F, HK, K, tokens = 16, 24, 16, 8, 3 * 16 * 200
    assert encode["flops"] == 2 * tokens * (4 * D * HK + 3 * D * F + D * K + 2 * 200 * HK)
    assert encode["padding"] == pytest.approx(1 - 40 * encode["tokens"] / tokens)


def test_idle_share_is_the_time_waited():
    def batches(seconds):
        while True:
            time.sleep(seconds)
            yield {}

    assert throughput.idle_share(batches(0.05), 0.001, 4) > 0.6
    assert throughput.idle_share(batches(0.0), 0.05, 4) < 0.4


def test_spread_and_utilisation():
    found = records.spread([3.0, 1.0, 2.0])
    assert (found["seconds"], found["fastest"], found["slowest"]) == (2.0, 1.0, 3.0)
    counted = flops.Flops({"a": 100}, recomputed=50)
    assert records.utilisation(counted, 2.0, 100.0) == {"mfu": 0.5, "hfu": 0.75}
    assert records.utilisation(counted, 2.0, None) == {}


def test_files_are_compared_by_the_names_of_their_rows(tmp_path, capsys):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    rows = [
        {"part": "feed", "objective": "stage1", "seconds": 2.0, "tokens": 7},
        {"part": "encode", "seconds": 4.0, "passages_per_second": 10.0, "idle": 0.0},
    ]
    files[0].write_text(json.dumps({"settings": {"batch": 4}, "throughput": rows}))
    rows[0]["seconds"], rows[1]["passages_per_second"] = 1.0, 25.0
    files[1].write_text(json.dumps({"throughput": [*rows, {"part": "search", "seconds": 1.0}]}))
    before = records.flat(json.loads(files[0].read_text()))
    assert before == {
        "feed stage1 seconds": 2.0,
        "encode seconds": 4.0,
        "encode passages_per_second": 10.0,
        "encode idle": 0.0,
    }
    records.compare(*files)
    printed = capsys.readouterr().out
    assert "0.500" in printed
    assert "2.500" in printed
    assert "search" not in printed


def test_what_is_written_says_how_it_was_made(tmp_path):
    given = argparse.Namespace(out=tmp_path / "a.json", batch=4, work=tmp_path, worker=None, compare=None)
    records.write(given, {"throughput": []})
    found = json.loads(given.out.read_text())
    assert found["settings"] == {"batch": 4, "work": str(tmp_path)} and found["throughput"] == []
    assert "jax" in found["versions"]
    records.write(argparse.Namespace(out=None), {})


def test_bad_input_is_one_line_and_status_2(capsys):
    def bad():
        raise InputError("is bad", key="--corpus")

    assert records.exit_status(bad) == 2
    assert capsys.readouterr().err == "error: --corpus: is bad\n"
    assert records.exit_status(lambda: None) == 0
