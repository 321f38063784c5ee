# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions by wordings that people wrote for known forms of sentences, without any model.

For corpora whose sentences have few forms, such as the embedded encyclopaedia or pages that a program fills in. A
phrasebook is a table, `language statement question`: the statement names the answer's place and one other,
``{answer}`` and ``{given}``, and the question names ``{given}``. A statement's questions are its variants, in the order
of the file.
"""

import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from class_jax.common.files import numbered_lines
from class_jax.errors import InputError
from class_jax.questions.readers import KNOWN_LANGUAGES
from class_jax.synthesis.stage2.transform import Draw, Rejected, Transformed

HEADER = ("language", "statement", "question")
_ANSWER, _GIVEN = "{answer}", "{given}"


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement around its two places, and its questions."""

    before: str
    between: str
    after: str
    answer_first: bool
    questions: tuple[str, ...]

    def given(self, before: str, after: str) -> str | None:
        """The other place's text in a sentence with this text around its answer; None: another form."""
        near, far = (self.between, self.after) if self.answer_first else (self.before, self.between)
        rest, held = (after, before) if self.answer_first else (before, after)
        if held != (self.before if self.answer_first else self.after):
            return None
        whole = rest.startswith(near) and rest.endswith(far) and len(rest) > len(near) + len(far)
        return rest[len(near) : len(rest) - len(far)] if whole else None


class PhrasebookTransformer:
    """Makes the questions of an example that its sentence's form has.

    Args:
      forms: by language, as `read_phrasebook` returns them.
    """

    def __init__(self, forms: Mapping[str, Sequence[_Form]]):
        self._forms = forms

    def transform(self, draws: Iterable[Draw]) -> Generator[Transformed | Rejected, None, None]:
        """Reasons of rejects: ``no_wording``, if no statement fits; ``no_variant``, if it has no more questions."""
        for draw in draws:
            form, given = self._fitting(draw)
            if form is None:
                yield Rejected(draw, "no_wording", draw.example.sentence)
            elif draw.variant >= len(form.questions):
                yield Rejected(draw, "no_variant")
            else:
                yield Transformed(draw, form.questions[draw.variant].replace(_GIVEN, given))

    def _fitting(self, draw: Draw) -> tuple[_Form | None, str]:
        example = draw.example
        before, after = example.sentence[: example.start], example.sentence[example.end :]
        fitting = [
            (form, given)
            for form in self._forms.get(example.language, ())
            if (given := form.given(before, after)) is not None
        ]
        # The form with the most words of its own leaves the shortest name.
        return min(fitting, key=lambda found: len(found[1]), default=(None, ""))


def read_phrasebook(path: str | os.PathLike) -> dict[str, list[_Form]]:
    """Reads a phrasebook: its forms by language.

    Raises:
      InputError: no such file, a wrong header or number of columns, an unknown language, or a place that is missing or
        occurs twice.
    """
    questions: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line, text in numbered_lines(path):
        row = tuple(text.split("\t"))
        if line == 1:
            if row != HEADER:
                raise InputError("wrong header", file=path, line=line, remedy="write " + "<TAB>".join(HEADER))
            continue
        if len(row) != len(HEADER):
            raise InputError(f"{len(row)} columns instead of {len(HEADER)}", file=path, line=line)
        language, statement, question = row
        if language not in KNOWN_LANGUAGES:
            raise InputError("unknown language", file=path, line=line, key=language, remedy="use its code, such as fi")
        for key, value, places in (("statement", statement, (_ANSWER, _GIVEN)), ("question", question, (_GIVEN,))):
            for place in (_ANSWER, _GIVEN):
                if value.count(place) != (place in places):
                    problem = f"names {place} {value.count(place)} times"
                    remedy = f"name {' and '.join(places)}, each once"
                    raise InputError(problem, file=path, line=line, key=key, remedy=remedy)
        questions[language, statement].append(question)
    forms: dict[str, list[_Form]] = defaultdict(list)
    for (language, statement), asked in questions.items():
        answer_first = statement.index(_ANSWER) < statement.index(_GIVEN)
        first, second = (_ANSWER, _GIVEN) if answer_first else (_GIVEN, _ANSWER)
        before, _, rest = statement.partition(first)
        between, _, after = rest.partition(second)
        forms[language].append(_Form(before, between, after, answer_first, tuple(asked)))
    return dict(forms)
