# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax passages`, `vocabulary` and `store`: from a dump to the token store that models read."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, show


def passages(
    dump: Annotated[Path, typer.Option(help="pages-articles XML, plain or bz2")],
    out: Annotated[Path, typer.Option(help="passage TSV to write")],
    words: Annotated[int, typer.Option(help="words of a passage", min=10)] = 100,
    as_json: AsJson = False,
) -> None:
    """Cuts a Wikipedia dump into passages."""
    from class_jax.corpus.wikipedia.dump import passages_from_dump

    made = passages_from_dump(dump, out, words)
    show({"out": out, "counts": made}, f"{out}: {made}", as_json)


def vocabulary(
    passages: Annotated[Path, typer.Option(help="passage TSV to train on")],
    out: Annotated[Path, typer.Option(help="the SentencePiece model to write")],
    size: Annotated[int, typer.Option(help="number of pieces", min=260)] = 32000,
    as_json: AsJson = False,
) -> None:
    """Trains a SentencePiece vocabulary on passages."""
    from class_jax.corpus.inputs import PREFIXES, passage_text
    from class_jax.corpus.passages import read_passages
    from class_jax.corpus.vocabulary import train_vocabulary

    made = train_vocabulary((passage_text(passage) for passage in read_passages(passages)), out, size, symbols=PREFIXES)
    value = {"out": out, "pieces": made.size, "fingerprint": made.fingerprint}
    show(value, f"{out}: {made.size} pieces, fingerprint {made.fingerprint[:12]}", as_json)


def store(
    passages: Annotated[Path, typer.Option(help="passage TSV: id, text, title")],
    vocabulary: Annotated[str, typer.Option(help="SentencePiece model, by path or hub id")],
    out: Annotated[Path, typer.Option(help="folder to write")],
    max_tokens: Annotated[int, typer.Option(help="longer passages are cut", min=2)] = 200,
    as_json: AsJson = False,
) -> None:
    """Streams passages into a memory-mapped token store."""
    from class_jax.corpus.store import build_store
    from class_jax.corpus.vocabulary import Vocabulary

    made = build_store(passages, Vocabulary.load(vocabulary), out, max_tokens)
    value = {"out": out, "passages": made.num_passages, "fingerprint": made.fingerprint}
    show(value, f"{out}: {made.num_passages} passages, fingerprint {made.fingerprint[:12]}", as_json)
