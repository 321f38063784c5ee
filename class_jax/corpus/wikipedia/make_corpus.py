# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Wikipedia dumps to pages and passages: four stages, each a pipeline (see `stages`).

    titles/{lang}   titles and redirects of every wiki
    links           language links, from SQL dumps or Wikidata
    pages/{lang}    pages (see `pages.Page`), redirects followed, links checked
    passages        passages.tsv of all languages, in the order given

What was left out is counted by reason and listed in `rejects-*.tsv` beside the pages: file, byte offset, page, reason,
detail.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from class_jax.corpus.inputs import language_code
from class_jax.corpus.wikipedia.dump import MAX_PAGE_BYTES
from class_jax.corpus.wikipedia.rejects import BAD_LINKS, CUT_OFF, DAMAGE, REJECTED
from class_jax.corpus.wikipedia.splits import SPLIT_BYTES, file_identity, split_dumps
from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig, check_runner
from class_jax.pipelines.stages import run_stage, stage_fingerprint


@dataclass(frozen=True)
class WikiFiles:
    """The files of one wiki.

    Attributes:
      language: its code.
      dumps: `pages-articles` XML, plain, bz2 or gz; several parts, in order.
      langlinks: SQL dump of the table `langlinks`, plain or gz.
      page_table: SQL dump of the table `page`: all titles of the wiki, where `dumps` are a part of it.
    """

    language: str
    dumps: tuple[str, ...]
    langlinks: str | None = None
    page_table: str | None = None


@dataclass(frozen=True)
class CorpusConfig:
    """Settings of the stages.

    Attributes:
      words: most words of a passage.
      at_sentences: passages end where sentences do, for small ones that should each state something whole; the
        public tables are cut by words only.
      max_page_bytes: longer pages are skipped and counted.
      split_bytes: compressed bytes of one split of a multistream dump with its index.
    """

    words: int = 100
    at_sentences: bool = False
    max_page_bytes: int = MAX_PAGE_BYTES
    split_bytes: int = SPLIT_BYTES


def make_corpus(
    wikis: Sequence[WikiFiles],
    out: str | os.PathLike,
    *,
    config: CorpusConfig = CorpusConfig(),
    sitelinks: Sequence[str] = (),
    runner: RunnerConfig | None = None,
    progress: bool | None = None,
    force: bool = False,
) -> dict[str, dict[str, int]]:
    """Makes pages and passages of several wikis; stages that are done are not run again.

    Args:
      wikis: each language once; passages are numbered in this order.
      out: the work folder.
      config: settings.
      sitelinks: Wikidata dumps or light tables of language links; see `titles.sitelinks`.
      runner: what runs the stages; None: all cores of this machine.
      progress: show bars; None shows them on a terminal only.
      force: make again what was made from other inputs.

    Returns:
      The counts of every stage by its name. Damage is skipped and counted; see `damage`.

    Raises:
      InputError: for a missing file, an unknown language or bad settings; see also `run_stage`.
    """
    runner = runner or RunnerConfig()
    check_runner(runner)
    out = Path(out)
    _check(wikis, config)
    languages = tuple(wiki.language for wiki in wikis)
    limit = config.max_page_bytes
    splits = {wiki.language: tuple(split_dumps(wiki.dumps, config.split_bytes)) for wiki in wikis}
    dumps = {wiki.language: {"dumps": [file_identity(dump) for dump in wiki.dumps], "limit": limit} for wiki in wikis}
    counts: dict[str, dict[str, int]] = {}

    def run(name: str, build: Callable, inputs: Mapping[str, object], files: Iterable[str | os.PathLike]) -> None:
        total = sum(map(os.path.getsize, files))
        counts[name] = run_stage(
            out, name, build, inputs=inputs, runner=runner, progress=progress, total=total, force=force
        )

    from class_jax.corpus.wikipedia import steps

    for wiki in wikis:
        table = None if wiki.page_table is None else file_identity(wiki.page_table)
        build = steps.TitlesPipeline(splits[wiki.language], wiki.page_table, limit)
        run(f"titles/{wiki.language}", build, {**dumps[wiki.language], "page_table": table}, wiki.dumps)
    tables = {wiki.language: wiki.langlinks for wiki in wikis if wiki.langlinks}
    inputs = {
        "languages": languages,
        "langlinks": {language: file_identity(file) for language, file in tables.items()},
        "sitelinks": [file_identity(file) for file in sitelinks],
    }
    run("links", steps.LinksPipeline(tables, tuple(sitelinks), languages), inputs, (*tables.values(), *sitelinks))
    joined = {name: stage_fingerprint(out / name) for name in counts}
    for wiki in wikis:
        build = steps.PagesPipeline(wiki.language, splits[wiki.language], languages, str(out), limit)
        run(f"pages/{wiki.language}", build, {**dumps[wiki.language], "joined": joined}, wiki.dumps)
    folders = [out / "pages" / language for language in languages]
    shards = tuple(str(path) for folder in folders for path in sorted(folder.glob("*.jsonl")))
    inputs = {
        "pages": [stage_fingerprint(folder) for folder in folders],
        **{n: getattr(config, n) for n in ("words", "at_sentences")},
    }
    run("passages", steps.PassagesPipeline(shards, config.words, config.at_sentences), inputs, shards)
    return counts


def find_dumps(folder: str | os.PathLike, languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Finds the `pages-articles` files of wikis by the names that Wikimedia gives them.

    Of what a folder has of one wiki, a multistream file is taken first (several processes can read it), then a whole
    one, then the parts of one (`...-pages-articles1.xml-p1p41242.bz2`).

    Args:
      folder: with `{language}wiki-{date}-pages-articles-multistream.xml.bz2` and the like.
      languages: of the wikis.

    Raises:
      InputError: if a wiki has no such file, or some of several dates.
    """
    found = {}
    for language in languages:
        pattern = r"-pages-articles(?P<multi>-multistream)?(?P<part>\d+)?\.xml(-p(?P<first>\d+)p\d+)?"
        kinds: dict[tuple[bool, bool], list[tuple[int, int, str]]] = {}
        for path, match in _files_of(folder, language, pattern):
            part, first = (int(match[name] or 0) for name in ("part", "first"))
            kinds.setdefault((part > 0, match["multi"] is None), []).append((part, first, path))
        if not kinds:
            remedy = "download it from https://dumps.wikimedia.org"
            raise InputError(f"no {language}wiki-*-pages-articles.xml here", file=folder, remedy=remedy)
        (in_parts, _), files = min(kinds.items())
        if not in_parts and len(files) > 1:
            names = ", ".join(sorted(Path(path).name for *_, path in files))
            raise InputError(f"several dumps of one wiki ({names})", file=folder, remedy="keep one of them there")
        found[language] = tuple(path for *_, path in sorted(files))
    return found


def find_tables(folder: str | os.PathLike, languages: Sequence[str], table: str) -> dict[str, str]:
    """Finds the SQL dumps of a table, `{language}wiki-{date}-{table}.sql.gz`, by language.

    Raises:
      InputError: if a wiki has none, or several.
    """
    found = {}
    for language in languages:
        files = [path for path, _ in _files_of(folder, language, rf"-{table}\.sql")]
        if len(files) != 1:
            problem = f"{len(files)} files {language}wiki-*-{table}.sql here instead of one"
            raise InputError(problem, file=folder, remedy="download it from https://dumps.wikimedia.org")
        found[language] = files[0]
    return found


def _files_of(folder: str | os.PathLike, language: str, pattern: str) -> list[tuple[str, re.Match[str]]]:
    # Names have underscores where language codes have dashes.
    wiki = re.escape(language.replace("-", "_"))
    named = re.compile(rf"{wiki}wiki(-\w+)?{pattern}(\.bz2|\.gz)?")
    if not Path(folder).is_dir():
        raise InputError("no such folder", file=folder)
    return [(str(path), match) for path in sorted(Path(folder).iterdir()) if (match := named.fullmatch(path.name))]


def damage(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Returns what of the input could not be read, by stage and reason: `{"pages/en: cut_off": 1}`."""
    names = (*(REJECTED + reason for reason in DAMAGE), CUT_OFF, BAD_LINKS)
    return {
        f"{stage}: {name.removeprefix(REJECTED)}": found[name]
        for stage, found in counts.items()
        for name in names
        if found.get(name) and not stage.startswith("titles/")
    }


def _check(wikis: Sequence[WikiFiles], config: CorpusConfig) -> None:
    seen = set()
    for wiki in wikis:
        language_code(wiki.language)
        if wiki.language in seen:
            raise InputError("is given twice", key=f"language {wiki.language}")
        seen.add(wiki.language)
        if not wiki.dumps:
            raise InputError("has no dump", key=f"language {wiki.language}", remedy="name its pages-articles files")
    if not wikis:
        raise InputError("no wiki is given", key="dumps", remedy="name at least one language and its dump")
    for name, value in asdict(config).items():
        if name != "at_sentences" and value < 1:
            raise InputError(f"{value} is too small", key=name, remedy="1 or more")
