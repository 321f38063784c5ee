# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax translate`: questions, question-answer pairs, passages or retrieved lists in another language."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from class_jax.corpus.passages import Passage
    from class_jax.questions.readers import Question
    from class_jax.reranking.ranked import RankedList
    from class_jax.translation.dictionary import Translator
    from class_jax.translation.translators import Item

KINDS = ("auto", "questions", "passages", "ctxs")
SIDES = ("question", "passages")


def translate(
    given: Annotated[Path, typer.Argument(help="questions (JSON lines), passages (TSV), or retrieved lists (`ctxs`)")],
    out: Annotated[Path, typer.Option(help="file to write, in the same format; provenance lies beside it")],
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
) -> None:
    """Translates a file into the same format in another language, and keeps of each text where it is from."""
    for value, known, key in ((kind, KINDS, "kind"), (side, SIDES, "side")):
        if value not in known:
            raise InputError(f"unknown value {value!r}", key=key, remedy=nearest(value, known))
    form = _kind(given) if kind == "auto" else kind
    targets = _codes(target)
    if not targets and form != "ctxs":
        raise InputError("no language to translate into", key="target", remedy="give --target fi")
    if form == "passages" and source is None:
        raise InputError("passages don't say their language", key="source", remedy="give --source en")
    if sum(x is not None for x in (model, endpoint, dictionaries)) != 1:
        raise InputError("give one of --model, --endpoint and --dictionaries", key="translator")
    work = {"questions": _QuestionJob, "passages": _PassageJob, "ctxs": _ListJob}[form]
    options = {
        "targets": targets,
        "source": source and _codes(source)[0],
        "answers": answers,
        "keep": keep,
        "side": side,
    }
    job = work(given, **options)
    if endpoint is not None:
        from class_jax.llm.client import ChatClient, EndpointConfig

        config = EndpointConfig(url=endpoint, model=endpoint_model)
        with ChatClient(config, out.with_name(f"{out.name}.replies.sqlite")) as client:
            from class_jax.translation.translators import EndpointTranslator

            count = _run(job, EndpointTranslator(client), out)
    else:
        count = _run(job, _translator(model, dictionaries, vocabulary, beams, dtype), out)
    typer.echo(f"{out}: {count} texts translated; where each is from: {provenance_path(out)}")


def provenance_path(out: Path) -> Path:
    """Where it stands what each translation was made of and by whom."""
    return out.with_name(f"{out.name}.provenance.jsonl")


def _translator(
    model: str | None, dictionaries: Path | None, vocabulary: str | None, beams: int, dtype: str | None
) -> "Translator":
    if dictionaries is not None:
        from class_jax.translation.dictionary import DictionaryTranslator

        return DictionaryTranslator(dictionaries)
    from class_jax.translation.translators import MBartTranslator

    return MBartTranslator.from_pretrained(model, vocabulary=vocabulary, dtype=dtype, beams=beams)


def _codes(text: str | None) -> list[str]:
    from class_jax.commands.evaluate import numbers_or_names
    from class_jax.corpus.inputs import language_code

    return [language_code(code) for code in numbers_or_names(text)]


def _kind(path: Path) -> str:
    if path.name.endswith((".tsv", ".tsv.gz")):
        return "passages"
    from class_jax.common.files import numbered_lines

    line = next((text for _, text in numbered_lines(path) if text.strip()), None)
    if line is None:
        raise InputError("is empty", file=path)
    return "ctxs" if line.lstrip().startswith("[") else "questions"


class _Job(Protocol):
    """What a kind of file has to translate, and how it is written again."""

    items: "list[Item]"

    def write(self, out: Path, found: "dict[Item, str]") -> None:
        """Writes the file with the translations in place."""
        ...


def _run(job: _Job, translator: "Translator", out: Path) -> int:
    from class_jax.translation.translators import translate_items

    found = translate_items(translator, job.items, provenance_path(out))
    job.write(out, found)
    return len(found)


class _QuestionJob:
    """Questions with their answers; `fi-7` is question 7 in Finnish."""

    def __init__(self, path: Path, *, targets: list[str], source: str | None, answers: bool, keep: bool, side: str):
        from class_jax.questions.readers import read_xor

        self._all, self._targets, self._keep = list(read_xor(path)), targets, keep
        self._asked = [q for q in self._all if source is None or q.language == source]
        if not self._asked:
            raise InputError("no question in this language", file=path, key=source or "source")
        self._answers = answers
        self.items = [item for q, target in self._pairs() for item in self._of(q, target)]

    def _pairs(self) -> "Iterator[tuple[Question, str]]":
        return ((q, target) for q in self._asked for target in self._targets if target != q.language)

    def _of(self, q: "Question", target: str) -> "list[Item]":
        from class_jax.translation.translators import Item

        # Yes and no are labels of the data, and figures are the same everywhere.
        texts = [("question", q.text)]
        if self._answers:
            texts += [(f"answer {i}", a) for i, a in enumerate(q.answers, start=1) if _is_translatable(a)]
        return [Item(q.id, field, text, q.language, target) for field, text in texts]

    def write(self, out: Path, found: "dict[Item, str]") -> None:
        from class_jax.reranking.pipeline import write_questions
        from class_jax.translation.translators import Item

        made = list(self._all) if self._keep else []
        for q, target in self._pairs():
            answers = []
            for i, answer in enumerate(q.answers, start=1):
                answers.append(found.get(Item(q.id, f"answer {i}", answer, q.language, target), answer))
            text = found[Item(q.id, "question", q.text, q.language, target)]
            made.append(
                dataclasses.replace(q, id=f"{target}-{q.id}", text=text, answers=tuple(answers), language=target)
            )
        write_questions(out, made)


def _is_translatable(answer: str) -> bool:
    from class_jax.reports.breakdown import answer_type

    return bool(answer.strip()) and answer_type([answer]) not in ("yes/no", "year", "number")


class _PassageJob:
    """Passages; with several target languages, ids get the language in front."""

    def __init__(self, path: Path, *, targets: list[str], source: str, answers: bool, keep: bool, side: str):
        from class_jax.corpus.passages import read_passages
        from class_jax.translation.translators import Item

        self._all: list[Passage] = list(read_passages(path))
        self._source, self._targets, self._keep = source, targets, keep
        self.items = [
            Item(p.id, field, text, source, target)
            for p in self._all
            for target in targets
            for field, text in (("title", p.title), ("text", p.text))
            if text.strip()
        ]

    def write(self, out: Path, found: "dict[Item, str]") -> None:
        from class_jax.corpus.passages import Passage, write_passages
        from class_jax.translation.translators import Item

        prefixed = self._keep or len(self._targets) > 1

        def made() -> "Iterator[Passage]":
            yield from self._all if self._keep else ()
            for target in self._targets:
                for p in self._all:
                    title, text = (
                        found.get(Item(p.id, field, given, self._source, target), given)
                        for field, given in (("title", p.title), ("text", p.text))
                    )
                    yield Passage(f"{target}-{p.id}" if prefixed else p.id, text, title)

        write_passages(out, made())


class _ListJob:
    """Retrieved lists: one side of each takes the other's language, or `--target`; both directions of the paper."""

    def __init__(self, path: Path, *, targets: list[str], source: str | None, answers: bool, keep: bool, side: str):
        from class_jax.reranking.ranked import read_ranked
        from class_jax.translation.translators import Item

        if keep:
            raise InputError("goes with questions and passages", key="keep")
        self._lists: list[RankedList] = read_ranked(path, "ctxs", passage_language=source)
        self._side = side
        self._target = targets[0] if targets else None
        self._items: dict[tuple[str, str], Item] = {}
        for ranked in self._lists:
            q = ranked.question
            if side == "question":
                target = self._target or next((c.language for c in ranked.passages), q.language)
                _check_known(target, path, q.id)
                self._items[q.id, "question"] = Item(q.id, "question", q.text, q.language, target)
                continue
            for c in ranked.passages:
                _check_known(c.language, path, q.id)
                target = self._target or q.language
                for field, text in (("title", c.title), ("text", c.text)):
                    if text.strip():
                        self._items[q.id, f"{field} {c.id}"] = Item(c.id, field, text, c.language, target)
        self.items = list(self._items.values())

    def write(self, out: Path, found: "dict[Item, str]") -> None:
        from class_jax.reranking.ranked import write_ranked

        def text_of(id: str, field: str, given: str) -> str:
            item = self._items.get((id, field))
            return given if item is None else found[item]

        changed = []
        for ranked in self._lists:
            q = ranked.question
            if self._side == "question":
                item = self._items[q.id, "question"]
                extra = {k: v for k, v in ranked.extra.items() if k not in ("question", "lang")}
                extra["original_lang"] = q.language
                asked = dataclasses.replace(q, text=found[item], language=item.target)
                changed.append(dataclasses.replace(ranked, question=asked, extra=extra))
                continue
            passages = []
            for c in ranked.passages:
                extra = {k: v for k, v in c.extra.items() if k not in ("title", "text", "lang", "language")}
                title, text = (text_of(q.id, f"{f} {c.id}", t) for f, t in (("title", c.title), ("text", c.text)))
                language = self._target or q.language
                passages.append(c._replace(title=title, text=text, language=language, extra=extra))
            changed.append(dataclasses.replace(ranked, passages=tuple(passages)))
        write_ranked(out, changed, "ctxs")


def _check_known(language: str | None, path: Path, id: str) -> None:
    if language is None:
        raise InputError(
            "nothing says the language of its passages", file=path, key=f"question {id!r}", remedy="give --source"
        )
