# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import collections
import dataclasses
import json

import pytest
from llm_server import LLMServer, status

from class_jax.errors import InputError
from class_jax.llm.chat import Failure, Reply
from class_jax.llm.client import EndpointConfig
from class_jax.pipelines.runner import RunnerConfig, counter
from class_jax.pipelines.stages import read_stage, run_stage
from class_jax.questions.readers import TRAINING_LANGUAGES, read_anchor_questions
from class_jax.synthesis.stage2 import questions
from class_jax.synthesis.stage2.anchors import AnchorExample
from class_jax.synthesis.stage2.prompts import MetaExample, bulk_messages, meta_messages, parse_reply
from class_jax.synthesis.stage2.questions import QuestionConfig, draws_of, make_questions, plan_draws
from class_jax.synthesis.stage2.rules import RuleTransformer, rule_question
from class_jax.synthesis.stage2.transform import (
    Draw,
    PromptConfig,
    PromptTransformer,
    Rejected,
    Transformed,
    fingerprint_of,
    make_meta_examples,
    read_meta_examples,
    write_meta_examples,
)
from class_jax.synthesis.stage2.validate import ValidationConfig, problem_of

beam = pytest.importorskip("apache_beam")
HERE = RunnerConfig(workers=1)


def example(language, sentence, answer, kind, number=0):
    start = sentence.index(answer)
    place = (start, start + len(answer))
    return AnchorExample(
        f"{language}-{number}-{start}",
        language,
        str(number),
        "t",
        sentence,
        *place,
        "T",
        "E",
        "X",
        kind,
        f"{number + 1}",
    )


# Rules


@pytest.mark.parametrize(
    ("language", "sentence", "answer", "kind", "questions"),
    [
        ("en", "Mozart was taught by the Leopold (his father) in Salzburg.", "Salzburg", "where", {0: "Where Mozart was taught by the Leopold?", 2: "Mozart was taught by the Leopold in where?"}),
        ("en", "Mozart was taught by the Leopold.", "Leopold", "who", {0: "By who Mozart was taught?"}),
        ("en", "Mozart wrote it.", "Mozart", "who", {0: "Who wrote it?", 2: None}),
        ("de", "Im Jahr 1756 wurde er in Salzburg geboren.", "Salzburg", "where", {0: "Wo im Jahr 1756 wurde er geboren?"}),
        ("es", "Nació en Madrid en 1900.", "Madrid", "where", {0: "¿Dónde Nació en 1900?"}),
        ("fi", "Hän asui Turussa, mutta lopulta hän muutti Helsinkiin asumaan.", "Helsinki", "where", {0: "Missä Hän asui Turussa, mutta lopulta hän muutti asumaan?", 1: "Missä mutta lopulta hän muutti asumaan?"}),
        ("ar", "ولد في القاهرة سنة 1900.", "القاهرة", "where", {0: "أين ولد سنة 1900؟"}),
        ("ar", "كان المغني من أصدقاء سامي قديما.", "سامي", "who", {0: "من كان المغني من أصدقاء قديما؟", 2: None}),
        ("ar", "زار فرنسا وباريس مرة.", "باريس", "where", {0: "أين زار فرنسا مرة؟"}),
        ("bn", "কাতারের রাজধানী দোহাতে একটি দূতাবাস রয়েছে।", "দোহা", "where", {0: "কাতারের রাজধানী কোথায় একটি দূতাবাস রয়েছে?"}),
        ("te", "ద్రోణుడు ధర్మరాజు వైపు వెళ్ళాడు.", "ధర్మరాజు", "who", {0: "ద్రోణుడు ఎవరు వైపు వెళ్ళాడు?", 2: "ఎవరు ద్రోణుడు వైపు వెళ్ళాడు?"}),
        ("ja", "魯迅は孫悟空の先祖と推測した。", "魯迅", "who", {0: "誰が孫悟空の先祖と推測したか？", 2: "孫悟空の先祖と推測したのは誰ですか？", 3: None}),
        ("ja", "彼は東京で生まれました。", "東京", "where", {0: "彼はどこで生まれましたか？", 2: None}),
        ("ja", "彼は東京で生まれた。", "東京", "where", {2: "彼は生まれたのはどこですか？"}),
        ("ja", "彼は東京の北に住んだ。", "東京", "where", {0: "彼はどこの北に住んだか？", 2: None}),
        ("ja", "彼の町は東京だ。", "東京", "where", {0: "彼の町はどこか？", 2: None}),
        ("ko", "그것은 로마에 있는 다리 가운데 하나이다.", "로마", "where", {0: "그것은 어디에 있는 다리 가운데 하나인가?", 2: None}),
        ("ko", "리스본은 그를 회원으로 등록했다.", "리스본", "who", {0: "누가 그를 회원으로 등록했는가?"}),
        ("ko", "그는 리스본을 매우 사랑한다.", "리스본", "what", {0: "그는 무엇을 매우 사랑하는가?"}),
        ("ko", "그 산은 서울과 함께 아주 크다.", "서울", "where", {0: "그 산은 어디와 함께 아주 큰가?"}),
        ("zh", "鲁迅出生于浙江绍兴。", "绍兴", "where", {0: "鲁迅出生于浙江哪里？", 2: None}),
    ],
)  # fmt: skip
def test_rules_put_the_question_word_where_the_language_has_it(language, sentence, answer, kind, questions):
    for variant, wanted in questions.items():
        assert rule_question(Draw(example(language, sentence, answer, kind), variant)) == wanted


def test_rules_make_valid_questions_in_every_language():
    sentences = {
        "ja": "彼の父はXYZでの生活を始めた。",
        "zh": "他的父亲在XYZ开始了新生活。",
        "ko": "그의 아버지는 XYZ에서 새로운 삶을 시작했다.",
    }
    words = {
        "ar": "بدأ والده حياة جديدة في XYZ بعد الحرب.",
        "bn": "তার বাবা XYZ শহরে নতুন জীবন শুরু করেন।",
        "kn": "ಅವನ ತಂದೆ XYZ ನಗರದಲ್ಲಿ ಹೊಸ ಜೀವನ ಆರಂಭಿಸಿದರು.",
        "ml": "അവന്റെ അച്ഛൻ XYZ നഗരത്തിൽ പുതിയ ജീവിതം തുടങ്ങി.",
        "ru": "Его отец начал в XYZ новую жизнь.",
        "ta": "அவரது தந்தை XYZ நகரில் புதிய வாழ்க்கை தொடங்கினார்.",
        "te": "అతని తండ్రి XYZ నగరంలో కొత్త జీవితం ప్రారంభించాడు.",
    }
    for language in (*TRAINING_LANGUAGES, "en"):
        sentence = (sentences | words).get(language, "Pater eius in XYZ novam vitam coepit.")
        for kind in ("who", "where", "what", "when", "how much", "how many"):
            asked = example(language, sentence, "XYZ", kind)
            [made] = RuleTransformer().transform([Draw(asked)])
            assert problem_of(made.question, asked, ValidationConfig()) is None, (language, made.question)


def test_rules_leave_out_asides_but_not_the_one_with_the_answer():
    sentence = "Hän (synt. 1900 (tai 1901)) asui kauan siellä [1] (kaupunki Turku) yksin."
    question = rule_question(Draw(example("fi", sentence, "Turku", "where")))
    assert question == "Missä Hän asui kauan siellä (kaupunki) yksin?"


def test_rules_have_no_more_than_their_variants():
    draws = [Draw(example("fi", "Hän asui siellä.", "siellä", "where"), variant) for variant in range(6)]
    made = list(RuleTransformer().transform(draws))
    assert [type(outcome) for outcome in made] == [Transformed, Rejected, Transformed, Rejected, Rejected, Rejected]
    assert {outcome.reason for outcome in made if isinstance(outcome, Rejected)} == {"no_variant"}


# Prompts


def metas(language="fi", count=6):
    return [MetaExample(language, f"Lause {i} on tämä.", "mikä", f"{i}", f"Mikä lause {i}?") for i in range(count)]


class Model:
    """Answers by a function of the prompt."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def complete(self, tagged):
        for tag, request in tagged:
            self.requests.append(request)
            made = self.answer(request.messages[-1][1])
            yield tag, made if isinstance(made, Reply | Failure) else Reply(made, "stop", 1, 1)


FINNISH = example("fi", "Suomen pääkaupunki on Helsinki.", "Helsinki", "where")


def test_prompts_hold_sentence_word_answer_and_language():
    for messages in (meta_messages(FINNISH), bulk_messages(FINNISH, metas()[:3])):
        [(role, text)] = messages
        assert role == "user"
        for part in (FINNISH.sentence, "missä", "Helsinki", "Finnish"):
            assert part in text
    assert text.count("Statement:") == 4 and text.endswith("Answer: Helsinki\nQuestion:")
    assert text.index("Mikä lause 0?") < text.index(FINNISH.sentence)


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("Missä se on?", "Missä se on?"),
        ("  Question: Missä se on?  ", "Missä se on?"),
        ('Sure!\nThe transformed question is: "Missä se on?"\nDone', "Missä se on?"),
        ("**Question:** «Missä se on?»", "Missä se on?"),
        ("Question：「どこですか？」", "どこですか？"),
        ("<think>Question: no\n</think>\n\nQuestion:\nMissä se on?", "Missä se on?"),
        ("Missä  se\ton?\n\nStatement: toinen", "Missä se on?"),
        ("Question:", ""),
        ("\n \n", ""),
    ],
)
def test_the_question_in_a_reply_is_found(reply, question):
    assert parse_reply(reply)[0] == question


def test_the_draw_decides_the_three_meta_examples():
    transformer = PromptTransformer(Model(str), {"fi": metas(count=9)}, PromptConfig(meta_examples=9))
    drawn = [Draw(dataclasses.replace(FINNISH, id=f"fi-{i}-0"), v) for i in range(20) for v in range(2)]
    prompts = [transformer.request(draw).messages[0][1] for draw in drawn]
    assert all(prompt.count("Mikä lause") == 3 for prompt in prompts)
    assert len(set(prompts)) > 30
    assert prompts == [transformer.request(draw).messages[0][1] for draw in drawn]
    other = PromptTransformer(Model(str), {"fi": metas(count=9)}, PromptConfig(meta_examples=9, seed=1))
    assert prompts != [other.request(draw).messages[0][1] for draw in drawn]


def test_a_prompt_never_shows_the_question_of_its_own_sentence():
    own = MetaExample("fi", FINNISH.sentence, "missä", "Helsinki", "Missä on paljastus?")
    transformer = PromptTransformer(Model(str), {"fi": [own, *metas(count=3)]}, PromptConfig(meta_examples=4))
    for variant in range(20):
        assert "paljastus" not in transformer.request(Draw(FINNISH, variant)).messages[0][1]


@pytest.mark.parametrize(
    ("outcome", "made"),
    [
        ("Question: Missä se on?", "Missä se on?"),
        (Failure("refused", "x"), "refused"),
        ("", "no_reply"),
        (Reply("Missä se", "length", 1, 1), "cut_off"),
        (Reply("Missä se on?\nStatement: x", "length", 1, 1), "Missä se on?"),
    ],
)
def test_outcomes_of_a_model(outcome, made):
    transformer = PromptTransformer(Model(lambda prompt: outcome), {"fi": metas()}, PromptConfig())
    [found] = transformer.transform([Draw(FINNISH)])
    assert (found.question if isinstance(found, Transformed) else found.reason) == made


def test_too_few_meta_examples_are_refused():
    with pytest.raises(InputError, match="language 'fi'"):
        PromptTransformer(Model(str), {"fi": metas(count=3)}, PromptConfig())
    transformer = PromptTransformer(Model(str), {"ko": metas()}, PromptConfig())
    with pytest.raises(InputError, match="language 'fi'"):
        list(transformer.transform([Draw(FINNISH)]))


def finnish(count, language="fi"):
    return [
        example(language, f"Kaupunki numero {i} tässä maassa on Helsinki nyt.", "Helsinki", "where", i)
        for i in range(count)
    ]


def answer(prompt):
    """A question about the last statement of a prompt."""
    number = prompt.rpartition("Statement: ")[2].split()[2]
    return f"Missä on kaupunki numero {number}?"


def test_meta_examples_are_asked_for_until_there_are_enough_valid_ones():
    def sometimes(prompt):
        number = int(prompt.partition("numero ")[2].split()[0])
        return f"Missä on kaupunki {number}?" if number % 2 else f"Missä Helsinki {number} on?"

    model = Model(sometimes)
    config = PromptConfig(meta_examples=4, shown=3)
    made = make_meta_examples(model, finnish(40), "fi", config, ValidationConfig())
    assert [meta.question for meta in made] == [f"Missä on kaupunki {i}?" for i in (1, 3, 5, 7)]
    assert len(model.requests) < 12
    with pytest.raises(InputError, match="only 2 of 4"):
        make_meta_examples(model, finnish(5), "fi", config, ValidationConfig())


def test_meta_examples_come_back_from_their_file(tmp_path):
    path = tmp_path / "fi.jsonl"
    write_meta_examples(path, metas())
    assert read_meta_examples(path, "fi") == metas()
    path.write_text(path.read_text() + json.dumps({"sentence": "x"}) + "\n")
    with pytest.raises(InputError, match=r"fi\.jsonl:7"):
        read_meta_examples(path, "fi")
    path.write_text(json.dumps(dataclasses.asdict(metas()[0]) | {"question": " "}) + "\n")
    with pytest.raises(InputError, match="empty"):
        read_meta_examples(path, "fi")


def test_the_fingerprint_follows_all_that_decides():
    same = fingerprint_of("m", {"fi": metas()}, PromptConfig())
    assert same == fingerprint_of("m", {"fi": metas()}, PromptConfig())
    others = [
        fingerprint_of("n", {"fi": metas()}, PromptConfig()),
        fingerprint_of("m", {"fi": metas(count=5)}, PromptConfig()),
        fingerprint_of("m", {"fi": metas()}, PromptConfig(seed=1)),
        fingerprint_of("m", {"fi": metas()}, PromptConfig(), template="other words"),
    ]
    assert len({same, *others}) == 5


# The stage


def test_small_languages_get_several_questions_an_example():
    plans = plan_draws({"ru": 1000, "fi": 100, "te": 30, "bn": 3}, target=100, most_per_example=4, surplus=1.5)
    assert {k: p.per_example for k, p in plans.items()} == {"ru": 1, "fi": 2, "te": 4, "bn": 4}
    assert {k: p.share for k, p in plans.items()} == {"ru": 0.15, "fi": 1.0, "te": 1.0, "bn": 1.0}


class _Write:
    def __init__(self, examples):
        self.examples = examples

    def __call__(self, pipeline, out):
        counts = collections.Counter(example.language for example in self.examples)
        pipeline | beam.Create(sorted(counts.items())) | beam.MapTuple(_count_examples)
        for example in self.examples:
            (out / example.language).mkdir(exist_ok=True)
            with open(out / example.language / f"anchors-{len(example.id) % 2}.jsonl", "a", encoding="utf-8") as f:
                f.write(example.to_json() + "\n")


def _count_examples(language, n):
    counter(f"examples/{language}").inc(n)


def make_work(folder, examples):
    run_stage(folder, "anchors", _Write(examples), inputs={}, runner=HERE, progress=False)
    return folder


def koreans(count):
    sentences = [f"{i}번째 도시는 대한민국의 서울에 있는 곳이다." for i in range(count)]
    return [example("ko", sentence, "서울", "where", i) for i, sentence in enumerate(sentences)]


def run(work, runner=HERE, **settings):
    return make_questions(work, QuestionConfig(**{"languages": ("fi", "ko")} | settings), runner, progress=False)


def rows(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_rules_make_the_files_that_training_reads(tmp_path):
    work = make_work(tmp_path, [*finnish(30), *koreans(5)])
    counts = run(work, target=20)
    assert (counts["questions/fi"], counts["valid/ko"]) == (20, 5)
    questions = list(read_anchor_questions(work / "stage2" / "anchor_questions.tsv"))
    assert collections.Counter(q.language for q in questions) == {"fi": 20, "ko": 5}
    assert questions[-1].text.startswith(tuple("01234")) and "어디에" in questions[-1].text
    assert {q.answers for q in questions} == {("Helsinki",), ("서울",)}
    own = dict(rows(work / "stage2" / "anchor_questions.passages.tsv"))
    assert own == {q.id: str(int(q.id.split("-")[1]) + 1) for q in questions}
    english = rows(work / "stage2" / "anchor_questions.english.tsv")
    assert [row[0] for row in english] == list(own) and {row[2] for row in english} == {"E"}
    assert rows(work / "stage2" / "ko" / "anchor_questions.tsv") == [[q.id, q.text, *q.answers] for q in questions[20:]]
    for language in ("fi", "ko"):
        rejected = sum(n for k, n in counts.items() if k.startswith("rejected/") and k.endswith(language))
        assert counts[f"drawn/{language}"] == counts[f"valid/{language}"] + rejected


def test_beam_and_the_hosts_loop_keep_the_same_questions(tmp_path):
    examples = [*finnish(30), *koreans(6), *(dataclasses.replace(e, id=e.id + "9") for e in koreans(3))]
    work = make_work(tmp_path, examples)
    config = QuestionConfig(languages=("fi", "ko"), target=20, surplus=1.2)
    counts = make_questions(work, config, RunnerConfig(workers=1), progress=False)
    plans = plan_draws({"fi": 30, "ko": 9}, 20, 4, 1.2)
    one_process = questions._ask(work, config, plans, RuleTransformer(), tmp_path / "one_process", False)
    for name in ("anchor_questions.tsv", "anchor_questions.passages.tsv", "anchor_questions.english.tsv"):
        assert (tmp_path / "one_process" / name).read_bytes() == (work / "stage2" / name).read_bytes()
    assert one_process["rejected/duplicate/ko"] == counts["rejected/duplicate/ko"] >= 3


def test_draws_go_round_by_round_in_a_random_order(tmp_path):
    work = make_work(tmp_path, finnish(12))
    planned = plan_draws({"fi": 12}, 24, 4)["fi"]
    drawn = [draw.id for draw in draws_of(work, "fi", planned, seed=0)]
    assert [id[-1] for id in drawn] == ["0"] * 12 + ["1"] * 12
    assert [id[:-2] for id in drawn[:12]] == [id[:-2] for id in drawn[12:]]
    assert drawn[:12] != sorted(drawn[:12], key=lambda id: int(id.split("-")[1]))
    assert drawn != [draw.id for draw in draws_of(work, "fi", planned, seed=1)]


def endpoint(server, **settings):
    return EndpointConfig(**{"url": server.url, "model": "m", "attempts": 4, "first_wait": 0.0} | settings)


def prompted(work, server, **settings):
    prompts = PromptConfig(meta_examples=4, shown=3)
    return run(work, languages=("fi",), transformer="endpoint", endpoint=endpoint(server), prompts=prompts, **settings)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LLMServer(lambda body: answer(body["messages"][0]["content"])) as server:
        yield server


def test_an_endpoint_makes_meta_examples_then_questions(tmp_path, server):
    work = make_work(tmp_path, finnish(30))
    server.faults = [status(429, Retry_After="0"), status(500)]
    counts = prompted(work, server, target=10)
    assert counts["questions/fi"] == 10 and counts["endpoint/prompt_tokens"] > 0
    questions = list(read_anchor_questions(work / "stage2" / "anchor_questions.tsv"))
    assert all(q.text == f"Missä on kaupunki numero {q.id.split('-')[1]}?" for q in questions)
    assert len(rows(work / "meta_examples" / "fi.jsonl")) == 4
    assert read_stage(work / "meta_examples").result["endpoint/retries"] == 2
    asked = len(server.seen)
    assert prompted(work, server, target=10) == counts
    assert len(server.seen) == asked


def test_a_run_that_the_endpoint_ended_resumes_from_its_replies(tmp_path, server):
    work = make_work(tmp_path, finnish(30))
    server.fault_for = lambda body: status(401) if len(server.seen) > 12 else None
    with pytest.raises(InputError, match="401"):
        prompted(work, server, target=20)
    assert (work / "meta_examples" / "stage.json").exists() and not (work / "stage2").exists()
    before = {json.dumps(body) for _, body in server.seen[:12]}
    server.fault_for = lambda body: None
    asked = len(server.seen)
    assert prompted(work, server, target=20)["questions/fi"] == 20
    assert not before & {json.dumps(body) for _, body in server.seen[asked:]}


def test_rejects_are_counted_by_reason_and_made_up_for(tmp_path, server):
    work = make_work(tmp_path, finnish(30))

    def sometimes(body):
        good = answer(body["messages"][0]["content"])
        number = int(good.rstrip("?").split()[-1])
        return good if number % 3 else "Missä Helsinki on nyt?" if number % 2 else "Milloin se oli siellä?"

    server.answer = sometimes
    counts = prompted(work, server, target=15)
    assert counts["questions/fi"] == 15
    rejected = {k: n for k, n in counts.items() if k.startswith("rejected/")}
    assert set(rejected) == {"rejected/answer_in_question/fi", "rejected/wrong_question_word/fi"}
    assert counts["drawn/fi"] == 15 + sum(rejected.values())


def test_given_meta_examples_are_used(tmp_path, server):
    work = make_work(tmp_path / "work", finnish(30))
    (tmp_path / "mine").mkdir()
    write_meta_examples(tmp_path / "mine" / "fi.jsonl", metas(count=5))
    prompted(work, server, target=10, meta_examples=str(tmp_path / "mine"))
    assert not (work / "meta_examples").exists()
    assert all("Mikä lause" in prompt for prompt in server.prompts)
    with pytest.raises(InputError, match="transformer"):
        write_meta_examples(tmp_path / "mine" / "fi.jsonl", metas(count=4))
        prompted(work, server, target=10, meta_examples=str(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"transformer": "rule"}, "did you mean 'rules'"),
        ({"transformer": "endpoint"}, "QuestionConfig.endpoint"),
        ({"target": 0}, "target"),
        ({"surplus": 0.5}, "surplus"),
    ],
)
def test_bad_settings_are_refused(settings, word):
    with pytest.raises(InputError, match=word):
        QuestionConfig(**settings)


def test_languages_without_examples_are_named(tmp_path):
    with pytest.raises(InputError, match="anchors"):
        run(tmp_path)
    work = make_work(tmp_path, finnish(8))
    with pytest.raises(InputError, match="no anchor examples"):
        run(work, languages=("ko",))
    assert "questions/ko" not in run(work, target=5)
