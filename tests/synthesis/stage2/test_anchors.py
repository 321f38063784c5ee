# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import json

import pytest

from class_jax.corpus.wikipedia.pages import Anchor, Page
from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig
from class_jax.pipelines.stages import run_stage
from class_jax.synthesis.stage2.anchors import (
    AnchorConfig,
    AnchorExample,
    candidates_of,
    find_anchor_examples,
    read_anchor_examples,
)

beam = pytest.importorskip("apache_beam")

HERE = RunnerConfig(workers=1)


def page(id, language, title, sentences, links=None):
    """A page of sentences in which `[words|target]` is an anchor."""
    text, places, anchors = "", [], []
    for marked in sentences:
        start = len(text)
        for part in marked.replace("]", "[").split("["):
            words, bar, target = part.partition("|")
            if bar:
                anchors.append(Anchor(len(text), len(text) + len(words), target))
            text += words
        places.append((start, len(text)))
        text += "\n"
    return Page(id, language, title, text, (), tuple(places), tuple(anchors), links or {})


ENGLISH = [
    page("1", "en", "Helsinki", ["Helsinki is a city in Finland.", "Jean Sibelius, a person, lived there."]),
    page("2", "en", "Jean Sibelius", ["Jean Sibelius was a person."]),
    page("3", "en", "Sauna", ["A sauna is hot."]),
]
FINNISH = [
    page(
        "11",
        "fi",
        "Suomi",
        [
            "Suomen suurin kaupunki on [Helsinki|Helsinki (kaupunki)] nykyään.",
            "Säveltäjä [Sibelius|Jean Sibelius] asui vuosia Ainolassa, ja [sauna|Sauna] oli siellä.",
            "Tämän lauseen [linkki|Puuttuva] ei johda minnekään.",
            "Tämä lause johtaa [kylään|Kylä] ilman kielilinkkiä.",
            "Ja tämä taas [taloon|Talo] jota englanniksi puuttuu.",
            "[Lyhyt|Sauna] lause.",
            "Sana [sana|Sauna] on tässä lauseessa kahdesti.",
        ],
    ),
    page("12", "fi", "Helsinki (kaupunki)", ["Se on kaupunki."], {"en": "Helsinki", "ko": "헬싱키"}),
    page("13", "fi", "Jean Sibelius", ["Hän on säveltäjä."], {"en": "Jean Sibelius"}),
    page("14", "fi", "Sauna", ["Se on kuuma."], {"en": "Sauna"}),
    page("15", "fi", "Kylä", ["Se on pieni."], {"ko": "마을"}),
    page("16", "fi", "Talo", ["Se on iso."], {"en": "House"}),
]


def typer(page):
    """Takes the place of the entity types, which see only the first paragraph."""
    assert page.language == "en" and "\n" not in page.text
    assert page.sentence(0) == page.text
    return "GPE" if "city" in page.text else "PERSON" if "person" in page.text else None


class _Write:
    def __init__(self, files):
        self.files = files

    def __call__(self, pipeline, out):
        pipeline | beam.Create([0])
        for name, lines in self.files.items():
            (out / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def make_work(folder, pages=(*ENGLISH, *FINNISH), spans=None):
    """Pages, in two files a language, and passage spans, as the corpus's stages leave them."""
    for language in sorted({page.language for page in pages}):
        lines = [page.to_json() for page in pages if page.language == language]
        files = {"pages-00000-of-00002.jsonl": lines[:1], "pages-00001-of-00002.jsonl": lines[1:]}
        run_stage(folder, f"pages/{language}", _Write(files), inputs={}, runner=HERE, progress=False)
    if spans is None:
        spans = [(i, page.language, page.id, 0, len(page.text)) for i, page in enumerate(pages)]
    rows = ["id\tlanguage\tpage\tstart\tend", *("\t".join(map(str, row)) for row in spans)]
    run_stage(folder, "passages", _Write({"passage_spans.tsv": rows}), inputs={}, runner=HERE, progress=False)
    return folder


def run(work, **settings):
    config = AnchorConfig(**{"languages": ("fi",), "min_words": 4} | settings)
    return find_anchor_examples(work, config, HERE, progress=False, entity_type=typer)


def test_the_stage_joins_pages_links_types_and_passages(tmp_path):
    text = FINNISH[0].text
    border = text.index("Säveltäjä")
    spans = [
        (70, "fi", "11", 0, border),
        (71, "fi", "11", border, len(text)),
        (5, "fi", "12", 0, 9),
        (6, "en", "11", 0, 99),
    ]
    counts = run(make_work(tmp_path, spans=spans))
    found = {example.answer: example for example in read_anchor_examples(tmp_path, "fi")}
    assert set(found) == {"Helsinki", "Sibelius"}
    start = text.index("Helsinki")
    assert found["Helsinki"] == AnchorExample(
        id=f"fi-11-{start}",
        language="fi",
        page="11",
        title="Suomi",
        sentence="Suomen suurin kaupunki on Helsinki nykyään.",
        start=26,
        end=34,
        target="Helsinki (kaupunki)",
        english="Helsinki",
        entity_type="GPE",
        kind="where",
        passage="70",
    )
    assert found["Helsinki"].question_word == "missä"
    assert (found["Sibelius"].passage, found["Sibelius"].question_word) == ("71", "kuka")
    assert counts == {
        "anchors/fi": 8,
        "examples/fi": 2,
        "rejected/no_type/fi": 1,
        "rejected/no_page/fi": 1,
        "rejected/no_english_link/fi": 1,
        "rejected/no_english_page/fi": 1,
        "rejected/sentence_length/fi": 1,
        "rejected/answer_repeated/fi": 1,
    }
    assert counts["anchors/fi"] == counts["examples/fi"] + sum(
        n for k, n in counts.items() if k.startswith("rejected/")
    )


def test_an_anchor_outside_every_passage_is_counted(tmp_path):
    end = FINNISH[0].text.index("Säveltäjä")
    counts = run(make_work(tmp_path, spans=[(70, "fi", "11", 0, end)]))
    assert (counts["examples/fi"], counts["rejected/no_passage/fi"]) == (1, 5)


def test_english_pages_can_be_asked_about_too(tmp_path):
    own = page("4", "en", "Finland", ["The largest city of it is [Helsinki|Helsinki] now."])
    counts = run(make_work(tmp_path, [*ENGLISH, own]), languages=("en",))
    [example] = read_anchor_examples(tmp_path, "en")
    assert (example.english, example.question_word, counts["examples/en"]) == ("Helsinki", "where", 1)


def test_several_processes_and_one_find_the_same(tmp_path):
    counts = run(make_work(tmp_path / "one"))
    make_work(tmp_path / "two")
    config = AnchorConfig(languages=("fi",), min_words=4)
    two = find_anchor_examples(
        tmp_path / "two", config, RunnerConfig(workers=2), progress=False, entity_type=_type_in_a_worker
    )
    assert two == counts

    def examples(name):
        return sorted(example.to_json() for example in read_anchor_examples(tmp_path / name, "fi"))

    assert examples("one") == examples("two")


def _type_in_a_worker(page):
    return typer(page)


def test_a_finished_stage_is_not_run_again_and_other_settings_are_refused(tmp_path):
    counts = run(make_work(tmp_path))
    [path] = (tmp_path / "anchors" / "fi").glob("*.jsonl")
    before = path.stat().st_mtime_ns
    assert run(tmp_path) == counts
    assert path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="min_words"):
        run(tmp_path, min_words=1)


def test_missing_inputs_are_named(tmp_path):
    with pytest.raises(InputError, match="pages/en"):
        run(tmp_path)
    make_work(tmp_path)
    with pytest.raises(InputError, match="pages/ko"):
        run(tmp_path, languages=("fi", "ko"))
    (tmp_path / "passages" / "passage_spans.tsv").unlink()
    with pytest.raises(InputError, match=r"passage_spans\.tsv"):
        run(tmp_path)


def test_a_broken_line_is_named(tmp_path):
    work = make_work(tmp_path, spans=[(1, "fi", "11", 0, "end")])
    with pytest.raises(InputError, match=r"passage_spans\.tsv.*end"):
        run(work)


def candidates(sentence, language="fi", **settings):
    found = list(candidates_of(page("1", language, "t", [sentence]), AnchorConfig(**settings)))
    return [item if isinstance(item, str) else item.answer for item in found]


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("Viisi sanaa on [tässä|X] näin.", ["tässä"]),
        ("Vain neljä [sanaa|X] tässä.", ["sentence_length"]),
        ("Liian " + "pitkä " * 60 + "[lause|X].", ["sentence_length"]),
        ("Viisi sanaa on [—|X] tässä näin.", ["answer_length"]),
        ("Viisi sanaa on [a b c d e f g h i|X] tässä näin.", ["answer_length"]),
        ("TÄSSÄ on viisi sanaa [tässä|X] näin.", ["answer_repeated"]),
        ("Kaksi [linkkiä|X] on tässä [lauseessa|Y].", ["linkkiä", "lauseessa"]),
    ],
)
def test_why_an_anchor_is_no_example(sentence, found):
    assert candidates(sentence) == found


def test_japanese_is_measured_in_characters():
    assert candidates("魯迅は[無支祁|X]を", "ja") == ["sentence_length"]
    assert candidates("魯迅は[無支祁|X]が孫悟空の先祖だ", "ja") == ["無支祁"]


def test_an_anchor_outside_the_sentences_is_reported():
    text = "Otsikko linkki. Viisi sanaa on tässä näin."
    start = text.index("Viisi")
    found = Page("1", "fi", "t", text, (), ((start, len(text)),), (Anchor(8, 14, "X"), Anchor(start, start + 5, "Y")))
    assert [getattr(c, "answer", c) for c in candidates_of(found, AnchorConfig())] == ["outside_sentence", "Viisi"]
    late = Page("1", "fi", "t", text, (), ((0, 8),), (Anchor(8, 14, "X"),))
    assert list(candidates_of(late, AnchorConfig())) == ["outside_sentence"]


def test_a_sentence_over_two_lines_becomes_one_and_keeps_its_offsets():
    text = "Viisi sanaa\non\ttässä näin."
    found = Page("1", "fi", "t", text, (), ((0, len(text)),), (Anchor(15, 20, "X"),))
    [example] = candidates_of(found, AnchorConfig())
    assert (example.sentence, example.answer) == ("Viisi sanaa on tässä näin.", "tässä")


def test_lines_come_back_and_others_are_refused(tmp_path):
    example = AnchorExample("fi-1-0", "fi", "1", "t", "a b", 0, 1, "X", "E", "GPE", "where", "7")
    assert AnchorExample.from_json(example.to_json()) == example
    with pytest.raises(InputError, match="f:3"):
        AnchorExample.from_json('{"id": 1}', file="f", number=3)
    folder = tmp_path / "anchors" / "fi"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text(example.to_json() + "\n" + json.dumps([1]) + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        list(read_anchor_examples(tmp_path, "fi"))


@pytest.mark.parametrize("languages", [(), ("fi", "fi"), ("xx",)])
def test_bad_languages_are_refused(languages):
    with pytest.raises(InputError):
        AnchorConfig(languages=languages)
