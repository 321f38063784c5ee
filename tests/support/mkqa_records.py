# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Records in the form of MKQA's public file."""


def record(id, kind, answers, queries=("da", "en", "ja")):
    """A record as the public file has it: answers by language, each a text with its aliases."""
    return {
        "example_id": id,
        "query": "q",
        "queries": {language: f"question {id} {language}" for language in queries},
        "answers": {
            language: [{"type": kind, "text": text, "aliases": aliases, "entity": "Q1"}]
            for language, (text, aliases) in answers.items()
        },
    }


RECORDS = [
    record(7, "entity", {"da": ("Kina", ["Folkerepublikken Kina"]), "en": ("China", []), "ja": ("中国", [])}),
    record(8, "binary", {"da": ("yes", []), "en": ("yes", []), "ja": ("yes", [])}),
    record(9, "unanswerable", {"da": (None, []), "en": (None, []), "ja": (None, [])}),
    record(10, "date", {"da": ("1998", []), "en": ("1998", []), "ja": ("1998年", ["1998"])}),
]
