# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Peak memory of converting a large checkpoint between layouts, beside the bar: the largest tensor plus 1 GB.

Makes random weights of mT5's shapes as sharded safetensors, converts them from layout to layout, each in a process of
its own, and reports the most memory that each process held (VmHWM: anonymous and file pages) above what it held when
the interpreter started. A run's stack of layers counts as one tensor.

    python benchmarks/convert.py --gb 3 --json convert.json
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.configs import config_to_hf
from class_jax.checkpoints.leaves import LazyArray
from class_jax.checkpoints.tensor_files import TensorFiles
from class_jax.common.files import write_json
from class_jax.models.config import ModelConfig

VOCAB_SIZE = 250_112  # mT5's
STEPS = (
    ("hf", "t5x"),
    ("t5x", "orbax"),
    ("orbax", "hf"),
    ("hf", "orbax"),
    ("orbax", "t5x"),
    ("t5x", "hf"),
)

CHILD = """
import sys, time
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
start = peak()
began = time.perf_counter()
from class_jax.checkpoints import convert
source = convert.open_source(sys.argv[1])
convert.convert(source, sys.argv[2], sys.argv[3], max_shard_bytes=10**9)
print(start, peak(), time.perf_counter() - began)
"""


def model_of(gigabytes: float) -> ModelConfig:
    """An mT5-like configuration whose float32 weights have about that size: wider first, then deeper."""
    config = None
    for width in (256, 512, 768, 1024, 1536, 2048):
        for layers in range(2, 25, 2):
            candidate = ModelConfig(
                vocab_size=VOCAB_SIZE,
                d_model=width,
                d_kv=64,
                d_ff=int(width * 2.75),
                num_layers=layers,
                num_decoder_layers=layers,
                num_heads=width // 64,
                retriever_head=0,
            )
            size = sum(4 * int(np.prod(shape)) for shape in huggingface.shapes(candidate).values())
            if config is None or abs(size - gigabytes * 1e9) < abs(config[1] - gigabytes * 1e9):
                config = candidate, size
    return config[0]


def random_tensors(config: ModelConfig) -> TensorFiles:
    """Normal deviates by name, drawn when they are asked for."""

    def draw(number: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(number).standard_normal(shape, np.float32)

    return TensorFiles(
        {
            name: LazyArray(shape, np.dtype(np.float32), lambda i=i, shape=shape: draw(i, shape))
            for i, (name, shape) in enumerate(huggingface.shapes(config).items())
        }
    )


def largest_tensor(config: ModelConfig) -> int:
    """Bytes of the largest tensor, the stacks of a run among them."""
    leaves = huggingface.as_leaves(random_tensors(config), config)
    return max(leaf.nbytes for leaf in leaves.values())


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=3.0, help="size of the weights, GB")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes (needs five times the size)")
    parser.add_argument("--json", type=Path, help="write the results there too")
    arguments = parser.parse_args()
    config = model_of(arguments.gb)
    tensors = random_tensors(config)
    largest = largest_tensor(config)
    bar = largest + 10**9
    print(
        f"{tensors.nbytes / 1e9:.2f} GB, {len(tensors)} tensors, d_model {config.d_model}, {config.num_layers} layers"
    )
    print(f"largest tensor {largest / 1e9:.2f} GB; bar {bar / 1e9:.2f} GB above the start")
    print(f"{'from':>6} {'to':>6} {'peak GB':>8} {'of bar':>7} {'seconds':>8}")
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="convert-", dir=arguments.folder))
    try:
        huggingface.write_tensor_folder(folder / "hf", tensors, config, max_shard_bytes=10**9)
        for source, layout in STEPS + ((("bin", "hf"),) if write_bin(folder / "bin", tensors, config) else ()):
            row = run(folder / source, folder / f"{layout}-new", layout)
            shutil.rmtree(folder / layout, ignore_errors=True)
            (folder / f"{layout}-new").rename(folder / layout)
            rows.append(row | {"bar_bytes": bar, "within": row["peak_bytes"] <= bar})
            peak = row["peak_bytes"]
            print(f"{source:>6} {layout:>6} {peak / 1e9:8.2f} {peak / bar:7.0%} {row['seconds']:8.1f}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json is not None:
        content = {"bytes": tensors.nbytes, "largest_tensor_bytes": largest, "conversions": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(row["within"] for row in rows) else 1)


def write_bin(folder: Path, tensors: TensorFiles, config: ModelConfig) -> bool:
    """Writes the weights as PyTorch does (this process holds all of them for that); False without PyTorch."""
    try:
        import torch
    except ImportError:
        return False
    folder.mkdir()
    write_json(folder / "config.json", config_to_hf(config))
    torch.save({name: torch.from_numpy(tensors[name]) for name in tensors}, folder / "pytorch_model.bin")
    return True


def run(source: Path, destination: Path, layout: str) -> dict:
    """Converts in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(destination), layout],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    start, peak, seconds = done.stdout.split()
    return {"from": source.name, "to": layout, "peak_bytes": int(peak) - int(start), "seconds": float(seconds)}


if __name__ == "__main__":
    main()
