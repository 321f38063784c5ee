# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax translate`: questions, question-answer pairs, passages or retrieved lists in another language."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.commands.options import entries
from class_jax.commands.printing import AsJson, show
from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from class_jax.translation.dictionary import Translator

KINDS = ("auto", "questions", "passages", "ctxs")
SIDES = ("question", "passages")


def translate(
    given: Annotated[Path, typer.Argument(help="questions (JSON lines), passages (TSV), or retrieved lists (`ctxs`)")],
    out: Annotated[Path, typer.Option(help="file to write, in the same format, with its provenance beside it")],
    target: Annotated[str | None, typer.Option(help="language codes, such as fi,ja; of ctxs see --side")] = None,
    source: Annotated[str | None, typer.Option(help="language of passages; of the questions to take")] = None,
    model: Annotated[str | None, typer.Option(help="mBART-50 many-to-many: a folder or a hub id")] = None,
    endpoint: Annotated[str | None, typer.Option(help="instead: address of an OpenAI-compatible endpoint")] = None,
    endpoint_model: Annotated[str, typer.Option(help="the model's name at the endpoint")] = "",
    dictionaries: Annotated[Path | None, typer.Option(help="instead: folder of SOURCE-TARGET.txt word lists")] = None,
    kind: Annotated[str, typer.Option(help="of the input: auto, questions, passages or ctxs")] = "auto",
    answers: Annotated[bool, typer.Option("--answers/--no-answers", help="translate answers of questions too")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="write the originals as well: augmentation")] = False,
    side: Annotated[
        str, typer.Option(help="of ctxs: 'question' into its first passage's language, or 'passages' into its own")
    ] = "passages",
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    beams: Annotated[int, typer.Option(help="of mBART's search", min=1)] = 5,
    dtype: Annotated[str | None, typer.Option(help="of matrix products: float32 or bfloat16")] = None,
    as_json: AsJson = False,
) -> None:
    """Translates a file into the same format in another language, and keeps of each text what it was made of."""
    for value, known, key in ((kind, KINDS, "kind"), (side, SIDES, "side")):
        if value not in known:
            raise InputError(f"unknown value {value!r}", key=key, remedy=nearest(value, known))
    if sum(x is not None for x in (model, endpoint, dictionaries)) != 1:
        raise InputError("give one of --model, --endpoint and --dictionaries", key="translator")
    from class_jax.reranking.translate_files import Request, open_job, provenance_path, translate_file

    request = Request.of(given, kind, entries(target), source, answers=answers, keep=keep, side=side)
    job = open_job(given, request)
    if endpoint is not None:
        from class_jax.llm.client import ChatClient, EndpointConfig
        from class_jax.translation.translators import EndpointTranslator

        config = EndpointConfig(url=endpoint, model=endpoint_model)
        with ChatClient(config, out.with_name(f"{out.name}.replies")) as client:
            count = translate_file(job, out, EndpointTranslator(client))
    else:
        count = translate_file(job, out, _translator(model, dictionaries, vocabulary, beams, dtype))
    provenance = provenance_path(out)
    value = {"out": out, "texts": count, "provenance": provenance}
    show(value, f"{out}: {count} texts translated; where each is from: {provenance}", as_json)


def _translator(
    model: str | None, dictionaries: Path | None, vocabulary: str | None, beams: int, dtype: str | None
) -> "Translator":
    if dictionaries is not None:
        from class_jax.translation.dictionary import DictionaryTranslator

        return DictionaryTranslator(dictionaries)
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.translation.translators import MBartTranslator

    return MBartTranslator.from_pretrained(model, vocabulary=vocabulary, dtype=dtype, beams=beams)
