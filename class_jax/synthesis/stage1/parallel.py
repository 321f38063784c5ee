# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stage-1 training data of mined pairs: balanced over languages, as parallel cloze queries (paper 3.1, A.1.1).

The paper's ablation draws the other language's side from elsewhere: from the English query by code-switching with a
bilingual dictionary, or from the English sentence by machine translation. Both keep the mined pairs' English side.
"""

import dataclasses
import functools
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from class_jax.common.files import digest_file, replacing
from class_jax.errors import InputError, nearest
from class_jax.pipelines.runner import RunnerConfig, counter
from class_jax.pipelines.stages import run_stage, stage_fingerprint
from class_jax.questions.masking import MASK
from class_jax.synthesis.stage1.cloze import ClozeQuery, cloze_queries
from class_jax.synthesis.stage1.mining import sample_counts
from class_jax.synthesis.stage1.pairs import STAGE as PAIRS
from class_jax.synthesis.stage1.pairs import SentencePair
from class_jax.translation.dictionary import Translator, read_dictionary, replace_words

if TYPE_CHECKING:
    import apache_beam as beam

STAGE = "stage1"
FILE = "parallel.tsv"
_SOURCES = ("mined", "code_switching", "translation")
_TRANSLATED_AT_ONCE = 256
# One writer numbers the queries: nothing here can be spread over processes.
_ALONE = RunnerConfig(workers=1)


@dataclass(frozen=True)
class ParallelConfig:
    """How mined pairs become stage-1 queries.

    Attributes:
      exponent: of the balanced sampling over languages (the paper's alpha).
      total: sentence pairs to use in all; None for as many as were mined, of which the sampling leaves out some.
      source: of the other language's side: "mined" (the paper's), or for its ablation "code_switching" or
        "translation".
      dictionaries: folder of bilingual dictionaries `en-{language}.txt`, as MUSE publishes them, for code-switching.
      ratio: of code-switching, probability that a word of the dictionary is replaced (the public code replaces all).
      seed: of code-switching.
    """

    exponent: float = 0.5
    total: int | None = None
    source: str = "mined"
    dictionaries: str | None = None
    ratio: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.source not in _SOURCES:
            remedy = nearest(self.source, _SOURCES)
            raise InputError(f"unknown value {self.source!r}", key="ParallelConfig.source", remedy=remedy)
        if (self.source == "code_switching") != (self.dictionaries is not None):
            problem = "must be set" if self.dictionaries is None else f"is set, but the source is {self.source!r}"
            raise InputError(problem, key="ParallelConfig.dictionaries", remedy="name a folder of en-{language}.txt")
        if not 0.0 < self.ratio <= 1.0:
            raise InputError(f"is {self.ratio}", key="ParallelConfig.ratio", remedy="choose above 0, at most 1")


def write_parallel(
    work: Path,
    config: ParallelConfig | None = None,
    progress: bool | None = None,
    *,
    translator: Translator | None = None,
    **stage: Any,
) -> dict[str, int]:
    """Writes `work/stage1/parallel.tsv` from `work/pairs`: id, English cloze, other question, answer; tab-separated.

    Ids are `{language}-{n}`, n counted from the pair of the highest margin. Memory grows with the number of pairs,
    by 32 bytes each, not with their text.

    Args:
      work: the work folder.
      config: settings; None takes the paper's.
      progress: show a bar; None shows it on a terminal only.
      translator: for the source "translation".
      **stage: further arguments of `run_stage`, such as `force`.

    Returns:
      Counts: `pairs/{language}` (those that differ), `sampled/{language}`, `queries/{language}`,
      `queries_of_type/{type}`, `rejected/{reason}`.

    Raises:
      InputError: if the pairs were not mined or none was found, a dictionary is missing, or as `run_stage` does.
    """
    config = config or ParallelConfig()
    if (config.source == "translation") != (translator is not None):
        problem = "needs a translator" if translator is None else f"is {config.source!r}, which needs no translator"
        raise InputError(problem, key="ParallelConfig.source", remedy="pass one only for 'translation'")
    work = Path(work)
    mined = stage_fingerprint(work / PAIRS)
    languages = sorted(path.name for path in (work / PAIRS).iterdir() if path.is_dir())
    inputs = {
        "config": dataclasses.asdict(config),
        "pairs": mined,
        "dictionaries": {language: digest_file(path) for language, path in _dictionaries(config, languages).items()},
        "translator": None if translator is None else translator.fingerprint,
    }
    write = functools.partial(
        _write, pairs=work / PAIRS, languages=languages, config=config, translator=translator, progress=progress
    )
    build = functools.partial(_build, write=write)
    return run_stage(work, STAGE, build, inputs=inputs, runner=_ALONE, progress=False, **stage)


def _dictionaries(config: ParallelConfig, languages: Sequence[str]) -> dict[str, Path]:
    if config.dictionaries is None:
        return {}
    found = {language: Path(config.dictionaries) / f"en-{language}.txt" for language in languages}
    for language, path in found.items():
        if not path.is_file():
            raise InputError("no such dictionary", file=path, key=language, remedy="download it from MUSE")
    return found


def _build(pipeline: "beam.Pipeline", out: Path, *, write: Callable[..., None]) -> None:
    import apache_beam as beam

    _ = pipeline | "once" >> beam.Create([FILE]) | "write" >> beam.Map(functools.partial(write, out=Path(out)))


def _write(
    name: str,
    *,
    out: Path,
    pairs: Path,
    languages: list[str],
    config: ParallelConfig,
    translator: Translator | None,
    progress: bool | None,
) -> None:
    places = {language: rank_pairs(sorted((pairs / language).glob("*.jsonl"))) for language in languages}
    sizes = {language: len(ranked) for language, ranked in places.items()}
    if not any(sizes.values()):
        remedy = "lower MiningConfig.threshold, or mine more pages"
        raise InputError("no pairs were mined", file=pairs, remedy=remedy)
    sampled = sample_counts(sizes, exponent=config.exponent, total=config.total)
    dictionaries = {language: read_dictionary(path) for language, path in _dictionaries(config, languages).items()}
    hidden = None if progress is None else not progress
    with replacing(out / name) as f, tqdm(total=sum(sampled.values()), unit="pair", desc=STAGE, disable=hidden) as bar:
        for language in languages:
            counts: Counter[str] = Counter()
            counts[f"pairs/{language}"] = sizes[language]
            counts[f"sampled/{language}"] = sampled[language]
            chosen = read_pairs(places[language], sampled[language])
            queries = _queries(chosen, config, dictionaries.get(language), translator, counts, bar)
            for number, query in enumerate(queries, start=1):
                f.write(f"{language}-{number}\t{query.english}\t{query.other}\t{query.answer}\n")
                counts[f"queries/{language}"] += 1
                counts[f"queries_of_type/{query.type or 'unknown'}"] += 1
            for key, count in counts.items():
                counter(key).inc(count)


def _queries(
    pairs: Iterator[SentencePair],
    config: ParallelConfig,
    dictionary: dict[str, tuple[str, ...]] | None,
    translator: Translator | None,
    counts: Counter[str],
    bar: tqdm,
) -> Iterator[ClozeQuery]:
    def reject(reason: str) -> None:
        counts[f"rejected/{reason}"] += 1

    if translator is not None:
        pairs = _translated(pairs, translator, reject)
    chance = random.Random(config.seed)
    for pair in pairs:
        bar.update(1)
        for query in cloze_queries(pair.english, pair.other, pair.language, pair.entities, reject):
            yield query if dictionary is None else code_switched(query, dictionary, config.ratio, chance)


def code_switched(
    query: ClozeQuery, dictionary: dict[str, tuple[str, ...]], ratio: float, chance: random.Random
) -> ClozeQuery:
    """Replaces the other side of a query by the English one with words of the dictionary's language in it.

    The mask stays: code-switching starts from the masked query, as in the public code.
    """
    return query._replace(other=replace_words(query.english, dictionary, ratio, chance, kept=(MASK,)))


def _translated(pairs: Iterator[SentencePair], translator: Translator, reject: Any) -> Iterator[SentencePair]:
    """Replaces the other sentence of each pair by a translation of the English one; empty translations are dropped."""
    batch: list[SentencePair] = []

    def flush() -> Iterator[SentencePair]:
        if batch:
            texts = translator.translate([pair.english for pair in batch], "en", batch[0].language)
            for pair, text in zip(batch, texts, strict=True):
                if text.strip():
                    yield dataclasses.replace(pair, other=text)
                else:
                    reject("empty_translation")
            batch.clear()

    for pair in pairs:
        batch.append(pair)
        if len(batch) == _TRANSLATED_AT_ONCE:
            yield from flush()
    yield from flush()


class RankedPairs(NamedTuple):
    """Where a language's pairs are, best margin first, equal sentences once.

    Attributes:
      files: the files.
      places: [n, 2] int64, number of the file and offset of the line.
    """

    files: list[Path]
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)


def rank_pairs(files: Sequence[Path]) -> RankedPairs:
    """Ranks the pairs of one language by margin; the order does not depend on how they are spread over the files.

    Of pairs with the same two sentences (on several pages) the one of the highest margin stays.

    Raises:
      InputError: if a line is no pair.
    """
    rows: list[tuple[float, int, int, int]] = []
    table = [np.zeros((0,), _ROW)]
    for number, file in enumerate(files):
        offset = 0
        with open(file, "rb") as f:
            for line in f:
                if line.strip():
                    pair = SentencePair.from_json(line.decode("utf-8"), file=file)
                    same = hashlib.blake2b(f"{pair.english}\t{pair.other}".encode(), digest_size=8).digest()
                    rows.append((-pair.margin, int.from_bytes(same, "big"), number, offset))
                offset += len(line)
                if len(rows) == 1 << 16:
                    table.append(np.array(rows, _ROW))
                    rows = []
    ranked = np.concatenate([*table, np.array(rows, _ROW)])
    ranked = ranked[np.lexsort((ranked["offset"], ranked["file"], ranked["same"], ranked["margin"]))]
    _, first = np.unique(ranked["same"], return_index=True)
    ranked = ranked[np.sort(first)]
    return RankedPairs(list(files), np.stack([ranked["file"], ranked["offset"]], axis=1).astype(np.int64))


_ROW = np.dtype([("margin", "f8"), ("same", "u8"), ("file", "i8"), ("offset", "i8")])


def read_pairs(ranked: RankedPairs, count: int) -> Iterator[SentencePair]:
    """Yields the best `count` pairs, best first."""
    opened = [open(file, "rb") for file in ranked.files]  # noqa: SIM115 - closed below
    try:
        for file, offset in ranked.places[:count]:
            opened[file].seek(offset)
            yield SentencePair.from_json(opened[file].readline().decode("utf-8"), file=ranked.files[file])
    finally:
        for f in opened:
            f.close()
