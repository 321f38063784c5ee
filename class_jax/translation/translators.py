# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Translation by models: mBART-50 many-to-many, or any OpenAI-compatible endpoint; and where each translation is from.

The interface, and a dictionary that has it, are in `class_jax.translation.dictionary`. Axes: B texts, P and A tokens.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from class_jax.common.batching import SOURCE_BUCKETS, buckets_within, length_batches, power_of_two
from class_jax.common.files import locked, numbered_lines
from class_jax.common.work import refuse_other
from class_jax.common.work_log import cut_torn_line
from class_jax.corpus.inputs import LANGUAGES
from class_jax.corpus.mbart_vocabulary import MBartVocabulary
from class_jax.errors import InputError, nearest
from class_jax.models import class_model, mbart
from class_jax.translation.dictionary import Translator

if TYPE_CHECKING:
    from class_jax.llm.client import ChatClient

_log = logging.getLogger(__name__)

_BATCH = 16
_BEAMS = 5  # of the public many-to-many models
_BLOCK = 64
_MAX_SOURCE = 512


class MBartTranslator:
    """mBART-50 many-to-many: the source's language in front of the text, the target's forced as the first token.

    Equal texts are translated once, as long as this object lives. Texts of like length go together.

    Args:
      config, params: the model's.
      vocabulary: the model's; mBART of 25 languages translates nothing and is refused.
      beams: of the search; 1 is greedy.
      batch: texts at once.

    Attributes:
      name: of the kind, for provenance.
      cut: texts that were longer than the model takes.
    """

    name = "mbart"

    def __init__(
        self,
        config: mbart.MBartConfig,
        params: class_model.Params,
        vocabulary: MBartVocabulary,
        beams: int = _BEAMS,
        batch: int = _BATCH,
    ):
        if not vocabulary.is_mbart50:
            remedy = "give an mBART-50 many-to-many"
            raise InputError("mBART of 25 languages is no translator", key="model", remedy=remedy)
        self.config, self.params, self.vocabulary = config, jax.device_put(params), vocabulary
        self.beams, self.batch, self.cut = beams, batch, 0
        self.max_source = min(_MAX_SOURCE, config.max_positions)
        self._known: dict[tuple[str, str, str], str] = {}

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | os.PathLike,
        *,
        vocabulary: str | os.PathLike | None = None,
        dtype: str | None = None,
        beams: int = _BEAMS,
    ) -> "MBartTranslator":
        """Loads a model, such as `facebook/mbart-large-50-many-to-many-mmt`.

        Raises:
          InputError: if weights or vocabulary are missing, damaged or another model's.
        """
        from class_jax.checkpoints.mbart_files import load_mbart

        config, params, beside = load_mbart(folder_or_hub_id, dtype=dtype or "float32")
        path = vocabulary or beside
        if path is None:
            problem = "no sentencepiece.bpe.model beside the weights"
            raise InputError(problem, file=folder_or_hub_id, remedy="give it as --vocabulary")
        return cls(config, params, MBartVocabulary(path, config.vocab_size), beams)

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Translator`."""
        form = (self.config.fingerprint, self.vocabulary.fingerprint, self.beams, self.max_source)
        digest = hashlib.sha256(repr(form).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
        return digest.hexdigest()

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """See `Translator`; what the model can't take in is cut, and a warning says how often.

        Raises:
          InputError: for a language that the model has no tag for (the known are listed), or an empty text.
        """
        tags = self.vocabulary.tag(source), self.vocabulary.tag(target)
        new = list(dict.fromkeys(text for text in texts if (text, source, target) not in self._known))
        for text in new:
            if not text.strip():
                raise InputError("nothing to translate", key="text", remedy="remove the empty text")
        for text, found in zip(new, self._generate(new, *tags), strict=True):
            self._known[text, source, target] = found
        return [self._known[text, source, target] for text in texts]

    def _generate(self, texts: Sequence[str], source: int, target: int) -> list[str]:
        tokens = [self.vocabulary.encode(text) for text in texts]
        room = self.max_source - 2
        long = sum(len(ids) > room for ids in tokens)
        if long:
            self.cut += long
            _log.warning("%d texts cut to the %d tokens that the model is given", long, room)
        rows = [[source, *ids[:room], self.config.eos_id] for ids in tokens]
        found = [""] * len(texts)
        buckets = buckets_within(SOURCE_BUCKETS, self.max_source)
        for members, width in length_batches(np.array([len(row) for row in rows]), self.batch, buckets):
            size = min(self.batch, power_of_two(len(members)))
            ids, lengths = np.zeros((size, width), np.int32), np.ones(size, np.int32)
            for place, i in enumerate(members.tolist()):
                ids[place, : len(rows[i])], lengths[place] = rows[i], len(rows[i])
            room = min(width + width // 2 + 16, self.config.max_positions)
            best = np.asarray(_generation(self.config, room, self.beams)(self.params, ids, lengths, np.int32(target)))
            for place, i in enumerate(members.tolist()):
                found[i] = self.vocabulary.decode(best[place])
        return found


@functools.cache
def _generation(config: mbart.MBartConfig, max_tokens: int, beams: int) -> Callable[..., jax.Array]:
    """Compiled translation: (params, ids [B, P], lengths [B], tag) -> ids [B, A]."""
    graph = mbart.mbart_graph(config)

    @jax.jit
    def generate(params: Any, ids: jax.Array, lengths: jax.Array, tag: jax.Array) -> jax.Array:
        model = class_model.merge(graph, params)
        memory = model.project(model.encode(ids, lengths), lengths)
        return mbart.generate(model, memory, max_tokens, beams, language_id=tag).ids[:, 0]

    return generate


class EndpointTranslator:
    """A language model behind an OpenAI-compatible endpoint, asked for each text; replies are cached by the client.

    Args:
      client: see `class_jax.llm.client`.
    """

    name = "endpoint"
    _SYSTEM = "You are a translator. Answer with the translation of the given text and with nothing else."
    _USER = "Translate this {source} text into {target}:\n\n{text}"

    def __init__(self, client: "ChatClient"):
        self._client = client
        self.fingerprint = hashlib.sha256((client.fingerprint + self._SYSTEM + self._USER).encode()).hexdigest()

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """See `Translator`.

        Raises:
          InputError: for an unknown language, or a text that the endpoint does not translate; what it did stays cached.
        """
        from class_jax.llm.chat import ChatRequest, Failure

        for code in (source, target):
            if code not in LANGUAGES:
                raise InputError(f"unknown language {code!r}", key="language", remedy=nearest(code, LANGUAGES))
        names = {"source": LANGUAGES[source], "target": LANGUAGES[target]}

        def requests() -> Iterator[tuple[str, ChatRequest]]:
            for text in texts:
                asked = (("system", self._SYSTEM), ("user", self._USER.format(text=text, **names)))
                # A byte is at most a token, and a translation may be far longer in bytes than its source.
                yield text, ChatRequest(asked, max_tokens=64 + 4 * len(text.encode()))

        found = []
        for text, outcome in self._client.complete(requests()):
            if isinstance(outcome, Failure):
                problem = f"not translated: {outcome.reason}, {outcome.detail}"
            elif outcome.finish_reason == "length" or not outcome.text.strip():
                problem = "the translation is empty or was cut off"
            else:
                found.append(outcome.text.strip())
                continue
            raise InputError(problem, key=f"text {text[:60]!r}", remedy="remove the text, or ask another model")
        return found


class Item(NamedTuple):
    """A text to translate.

    Attributes:
      id: of the example that it belongs to.
      field: of the example: "question", "answer 1", "title", "text".
      text: in the source language.
      source, target: language codes.
    """

    id: str
    field: str
    text: str
    source: str
    target: str


def translate_items(translator: Translator, items: Iterable[Item], provenance: str | os.PathLike) -> dict[Item, str]:
    """Translates items, each once, and keeps of each where its translation is from.

    Args:
      translator: any.
      items: what to translate; those already in the file are not translated again.
      provenance: JSON lines, one an item: id, field, source and target language, source text, text, and the
        translator's kind and fingerprint. Appended to after each block: a killed run resumes from there.

    Raises:
      InputError: if the file is of another translator or damaged, the disk refuses, or see `Translator.translate`.
    """
    wanted, path = list(dict.fromkeys(items)), Path(provenance)
    made = {"translator": getattr(translator, "name", type(translator).__name__), "model": translator.fingerprint}
    with locked(path):
        return _translated(translator, wanted, path, made)


def _translated(translator: Translator, wanted: list[Item], path: Path, made: dict[str, str]) -> dict[Item, str]:
    """Translates what the file lacks and appends it; the file is locked by the caller."""
    from tqdm import tqdm

    found = _read_provenance(path, made)
    found = {item: text for item, text in found.items() if item in set(wanted)}
    by_pair: dict[tuple[str, str], list[Item]] = {}
    for item in wanted:
        if item.source == item.target:
            found[item] = item.text
        elif item not in found:
            by_pair.setdefault((item.source, item.target), []).append(item)
    left = sum(map(len, by_pair.values()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(path, "a", encoding="utf-8", newline="\n") as f,
            tqdm(total=len(wanted), initial=len(wanted) - left, unit="text", desc="translate", disable=None) as bar,
        ):
            for (source, target), members in by_pair.items():
                for start in range(0, len(members), _BLOCK):
                    block = members[start : start + _BLOCK]
                    texts = translator.translate([item.text for item in block], source, target)
                    for item, text in zip(block, texts, strict=True):
                        found[item] = text
                        record = {"id": item.id, "field": item.field, "source": source, "target": target}
                        record |= {"source_text": item.text, "text": text, **made}
                        f.write(json.dumps(record, ensure_ascii=False) + "\n")
                    f.flush()
                    bar.update(len(block))
    except OSError as error:
        raise InputError(f"could not be written ({error.strerror})", file=path, remedy="free some space") from error
    return found


def _read_provenance(path: Path, made: dict[str, str]) -> dict[Item, str]:
    """What an earlier run translated; a line that a killed process did not finish is cut off."""
    if not path.exists():
        return {}
    try:
        cut_torn_line(path)
    except OSError as error:
        raise InputError(f"could not be written ({error.strerror})", file=path) from error
    found = {}
    for line, text in numbered_lines(path):
        try:
            record = json.loads(text)
            item = Item(*(record[key] for key in ("id", "field", "source_text", "source", "target")))
            found[item] = record["text"]
            by = {key: record[key] for key in made}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("not a line of translations' provenance", file=path, line=line) from error
        refuse_other(by, made, file=path, remedy="give another --out, or remove the file to start afresh")
    return found
