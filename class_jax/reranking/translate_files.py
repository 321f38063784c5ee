# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Translation of files: questions, passages or retrieved lists, into the same format in another language."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from class_jax.common.files import numbered_lines
from class_jax.corpus.inputs import language_code
from class_jax.corpus.passages import Passage, read_passages, write_passages
from class_jax.errors import InputError
from class_jax.questions.readers import Question, read_xor
from class_jax.reports.breakdown import answer_type
from class_jax.reranking.pipeline import write_questions
from class_jax.reranking.ranked import RankedList, read_ranked, write_ranked
from class_jax.translation.dictionary import Translator
from class_jax.translation.translators import Item, translate_items


@dataclasses.dataclass(frozen=True)
class Request:
    """What is translated into what.

    Attributes:
      kind: of the input: questions, passages or ctxs.
      targets: language codes; of ctxs, see `side`.
      source: language of passages; of the questions to take.
      answers: whether answers of questions are translated too.
      keep: whether the originals are written as well.
      side: of ctxs: `question` into its first passage's language, or `passages` into their question's.
    """

    kind: str
    targets: Sequence[str] = ()
    source: str | None = None
    answers: bool = True
    keep: bool = False
    side: str = "passages"

    @classmethod
    def of(cls, path: Path, kind: str, targets: Sequence[str], source: str | None, **settings) -> "Request":
        """A request with known language codes; the kind `auto` is read off the file.

        Raises:
          InputError: if a language is unknown, or the request does not say what it needs.
        """
        kind = _kind_of(path) if kind == "auto" else kind
        codes = [language_code(code) for code in targets]
        if not codes and kind != "ctxs":
            raise InputError("no language to translate into", key="target", remedy="give --target fi")
        if kind == "passages" and source is None:
            raise InputError("passages don't say their language", key="source", remedy="give --source en")
        return cls(kind, codes, source and language_code(source), **settings)


def open_job(path: Path, request: Request) -> "Job":
    """Reads a file and finds what of it is translated.

    Raises:
      InputError: for a malformed file, or an unknown language.
    """
    made = {"questions": _QuestionJob, "passages": _PassageJob, "ctxs": _ListJob}[request.kind]
    return made(path, request)


def translate_file(job: "Job", out: Path, translator: Translator) -> int:
    """Translates a file; interrupted, the same call resumes.

    Args:
      job: see `open_job`.
      out: in the same format; `provenance_path(out)` holds what each translation was made of.
      translator: the model or dictionary.

    Returns:
      How many texts were translated.
    """
    found = translate_items(translator, job.items, provenance_path(out))
    job.write(out, found)
    return len(found)


def provenance_path(out: Path) -> Path:
    """The file that says what each translation was made of and by whom."""
    return out.with_name(f"{out.name}.provenance.jsonl")


def _kind_of(path: Path) -> str:
    if path.name.endswith((".tsv", ".tsv.gz")):
        return "passages"
    line = next((text for _, text in numbered_lines(path) if text.strip()), None)
    if line is None:
        raise InputError("is empty", file=path)
    return "ctxs" if line.lstrip().startswith("[") else "questions"


class Job(Protocol):
    """What a kind of file has to translate, and how it is written again."""

    items: list[Item]

    def write(self, out: Path, found: dict[Item, str]) -> None:
        """Writes the file with the translations in place."""
        ...


class _QuestionJob:
    """Questions with their answers; `fi-7` is question 7 in Finnish."""

    def __init__(self, path: Path, request: Request):
        source = request.source
        self._all, self._targets, self._keep = list(read_xor(path)), request.targets, request.keep
        self._asked = [q for q in self._all if source is None or q.language == source]
        if not self._asked:
            raise InputError("no question in this language", file=path, key=source or "source")
        self._answers = request.answers
        self.items = [item for q, target in self._pairs() for item in self._of(q, target)]

    def _pairs(self) -> Iterator[tuple[Question, str]]:
        return ((q, target) for q in self._asked for target in self._targets if target != q.language)

    def _of(self, q: Question, target: str) -> list[Item]:
        # Yes and no are labels of the data, and figures are the same everywhere.
        texts = [("question", q.text)]
        if self._answers:
            texts += [(f"answer {i}", a) for i, a in enumerate(q.answers, start=1) if _is_translatable(a)]
        return [Item(q.id, field, text, q.language, target) for field, text in texts]

    def write(self, out: Path, found: dict[Item, str]) -> None:
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
    return bool(answer.strip()) and answer_type([answer]) not in ("yes/no", "year", "number")


class _PassageJob:
    """Passages; with several target languages, ids get the language in front."""

    def __init__(self, path: Path, request: Request):
        source, targets = request.source, request.targets
        self._all: list[Passage] = list(read_passages(path))
        self._source, self._targets, self._keep = source, targets, request.keep
        self.items = [
            Item(p.id, field, text, source, target)
            for p in self._all
            for target in targets
            for field, text in (("title", p.title), ("text", p.text))
            if text.strip()
        ]

    def write(self, out: Path, found: dict[Item, str]) -> None:
        prefixed = self._keep or len(self._targets) > 1

        def made() -> Iterator[Passage]:
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

    def __init__(self, path: Path, request: Request):
        side = request.side
        if request.keep:
            raise InputError("goes with questions and passages", key="keep")
        self._lists: list[RankedList] = read_ranked(path, "ctxs", passage_language=request.source)
        self._side = side
        self._target = request.targets[0] if request.targets else None
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

    def write(self, out: Path, found: dict[Item, str]) -> None:
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
