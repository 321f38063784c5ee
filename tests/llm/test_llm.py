# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import asyncio
import email.utils
import json
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest
from llm_server import (
    LLMServer,
    endless,
    hang,
    informational,
    packed,
    raw,
    slow_headers,
    status,
    trickle,
    truncated,
)

from class_jax.errors import InputError
from class_jax.llm.cache import ReplyCache
from class_jax.llm.chat import ChatRequest, Failure, Reply
from class_jax.llm.client import BudgetSpentError, ChatClient, EndpointConfig

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server():
    with LLMServer() as server:
        yield server


def ask(text, **settings):
    return ChatRequest((("user", text),), **settings)


def config(server, **settings):
    url = server if isinstance(server, str) else server.url
    return EndpointConfig(**{"url": url, "model": "m", "concurrency": 4, "attempts": 4} | settings)


def recorded(waits):
    """A pretended sleep, which takes no time and keeps its seconds in a list."""

    async def sleep(seconds):
        waits.append(seconds)

    return sleep


def run(config, cache, requests, sleep=None):
    """Outcomes in order, and the client that got them."""
    with ChatClient(config, cache, sleep=sleep or recorded([])) as client:
        return [outcome for _, outcome in client.complete((r, r) for r in requests)], client


def test_replies_come_in_order_while_requests_run_at_once(tmp_path):
    with LLMServer(delay=0.05) as server:
        outcomes, client = run(config(server), tmp_path / "c", [ask(str(i)) for i in range(12)])
        assert [o.text for o in outcomes] == [f"reply to {i}" for i in range(12)]
        assert 2 <= server.most_in_flight <= 4
    assert client.spending.replies == 12


def test_the_request_says_what_was_asked_and_the_settings_may_change_its_fields(server, tmp_path):
    settings = config(server, body={"temperature": None, "top_p": 0.5})
    request = ChatRequest((("system", "s"), ("user", "u")), max_tokens=7, seed=3)
    run(settings, tmp_path / "c", [request])
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert server.seen[0][1] == {"model": "m", "messages": messages, "max_tokens": 7, "seed": 3, "top_p": 0.5}


def test_what_was_answered_is_not_asked_again(server, tmp_path):
    run(config(server), tmp_path / "c", [ask("a"), ask("b")])
    outcomes, client = run(config(server), tmp_path / "c", [ask("b"), ask("a"), ask("c")])
    assert [o.text for o in outcomes] == ["reply to b", "reply to a", "reply to c"]
    assert sorted(server.prompts) == ["a", "b", "c"]
    assert (client.spending.cached, client.spending.replies) == (2, 1)


@pytest.mark.parametrize(
    "other",
    [{"model": "n"}, {"body": {"top_p": 0.5}}, {}],
    ids=["model", "body", "seed"],
)
def test_another_model_setting_or_seed_is_another_question_to_the_cache(server, tmp_path, other):
    run(config(server), tmp_path / "c", [ask("a", seed=1)])
    run(config(server, **other), tmp_path / "c", [ask("a", seed=1 if other else 2)])
    assert len(server.seen) == 2


def test_equal_requests_at_once_are_sent_once(tmp_path):
    with LLMServer(delay=0.1) as server:
        outcomes, _ = run(config(server), tmp_path / "c", [ask("a")] * 4)
        assert len(server.seen) == 1
    assert [o.text for o in outcomes] == ["reply to a"] * 4


def test_the_cache_records_prompts_and_replies(server, tmp_path):
    run(config(server), tmp_path / "c", [ask("why?")])
    cache = ReplyCache(tmp_path / "c")
    [request] = cache.requests()
    assert request["messages"] == [{"role": "user", "content": "why?"}]
    assert cache.tokens("m") == (10, 5)
    assert cache.tokens("another") == (0, 0)


@pytest.mark.parametrize(
    "fault",
    [
        status(429),
        status(500),
        status(503),
        status(408),
        raw(b"{not json"),
        raw(b"[]"),
        raw(b'{"choices": []}'),
        raw(b'{"choices": [{"message": {"content": null}}]}'),
        raw(b"\xff\xfe"),
        truncated,
    ],
    ids=["429", "500", "503", "408", "json", "list", "empty", "null", "bytes", "truncated"],
)
def test_a_failure_that_passes_is_tried_again(server, tmp_path, fault):
    server.faults = [fault, fault]
    outcomes, client = run(config(server), tmp_path / "c", [ask("a")])
    assert outcomes == [Reply("reply to a", "stop", 10, 5)]
    assert client.spending.retries == 2
    assert len(server.seen) == 3


@pytest.mark.parametrize("fault", [hang, trickle, slow_headers, informational])
def test_a_reply_that_takes_too_long_is_asked_for_again(server, tmp_path, fault):
    server.faults = [fault]
    # A busy machine may be too slow for later attempts as well.
    settings = config(server, timeout=0.3, attempts=50)
    outcomes, client = run(settings, tmp_path / "c", [ask("a")])
    assert outcomes == [Reply("reply to a", "stop", 10, 5)]
    assert 1 <= client.spending.retries == len(server.seen) - 1


@pytest.mark.parametrize("fault", [endless, packed])
def test_a_reply_is_of_bounded_size(server, tmp_path, fault):
    server.faults = [fault]
    tracemalloc.start()
    outcomes, client = run(config(server), tmp_path / "c", [ask("a")])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcomes == [Reply("reply to a", "stop", 10, 5)]
    assert client.spending.retries == 1
    assert peak < 48 * 2**20


def test_closing_ends_a_wait_and_keeps_what_is_in_flight(tmp_path):
    with LLMServer(delay=0.5) as server:
        server.fault_for = lambda body: status(500) if body["messages"][0]["content"] == "0" else None
        client = ChatClient(config(server, first_wait=60), tmp_path / "c")
        outcomes = client.complete((i, ask(str(i))) for i in (1, 0))
        threading.Thread(target=lambda: next(outcomes)).start()
        while len(server.seen) < 2:
            time.sleep(0.01)
        begun = time.monotonic()
        client.close()
        assert time.monotonic() - begun < 10
    [request] = ReplyCache(tmp_path / "c").requests()
    assert request["messages"][0]["content"] == "1"


def test_waits_double_and_are_partly_random(server, tmp_path):
    server.faults = [status(500)] * 5
    waits = []
    run(config(server, attempts=6, first_wait=1, longest_wait=6), tmp_path / "c", [ask("a")], recorded(waits))
    assert len(waits) == 5
    for wait, most in zip(waits, (1, 2, 4, 6, 6), strict=True):
        assert most / 2 <= wait <= most
    assert any(wait not in (1, 2, 4, 6) for wait in waits)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_every_request_back(server, tmp_path, form):
    later = "40" if form == "seconds" else email.utils.formatdate(time.time() + 40, usegmt=True)
    server.faults = [status(429, Retry_After=later)]
    waits = []
    run(config(server, concurrency=1, first_wait=0.001), tmp_path / "c", [ask("a"), ask("b")], recorded(waits))
    # The one that was refused waits, and (the pretended sleep having taken no time) so does the next.
    assert len(waits) >= 2
    assert all(35 < wait <= 40 for wait in waits)


def test_retry_after_is_no_longer_than_the_longest_wait(server, tmp_path):
    server.faults = [status(429, Retry_After="86400")]
    waits = []
    run(config(server, longest_wait=30), tmp_path / "c", [ask("a")], recorded(waits))
    assert max(waits) <= 30


def test_an_endpoint_that_is_down_ends_the_run_in_one_line_and_keeps_what_was_done(tmp_path):
    with LLMServer() as server:
        run(config(server), tmp_path / "c", [ask("a")])
    waits = []
    with ChatClient(config(server, concurrency=1), tmp_path / "c", sleep=recorded(waits)) as client:
        outcomes = client.complete((i, ask(i)) for i in "ab")
        assert next(outcomes)[1].text == "reply to a"
        with pytest.raises(InputError) as error:
            next(outcomes)
    text = str(error.value)
    assert server.url in text and "4 attempts" in text and "\n" not in text
    assert len(waits) == 3


def test_a_waiting_request_ends_at_once_with_the_reason_for_the_run_s_end(server, tmp_path):
    server.fault_for = lambda body: status(500) if body["messages"][0]["content"] == "0" else status(401, "no such key")
    begun = time.monotonic()
    client = ChatClient(config(server, first_wait=60), tmp_path / "c")
    # The first is in its back-off, of half a minute at least, when the second ends the run.
    with client, pytest.raises(InputError, match="no such key"):
        list(client.complete((i, ask(str(i))) for i in range(2)))
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_is_not_tried_again_and_never_shown(server, tmp_path, monkeypatch, code):
    monkeypatch.setenv("MY_KEY", KEY)
    server.faults = [status(code, f"wrong key {KEY}")] * 9
    with pytest.raises(InputError, match="MY_KEY") as error:
        run(config(server, api_key_variable="MY_KEY", concurrency=1), tmp_path / "c", [ask("a")])
    assert KEY not in str(error.value)
    assert len(server.seen) == 1


def test_the_key_is_sent_but_written_nowhere(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, client = run(config(server), tmp_path / "c", [ask("a")])
    assert server.seen[0][0]["Authorization"] == f"Bearer {KEY}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in repr(client.config)


@pytest.mark.parametrize("key", ["sk-very\nsecret", "sk-very\x7fsecret", "sk-vëry-secret"])
def test_a_key_that_no_header_can_hold_is_refused_and_never_shown(server, tmp_path, monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError, match="MY_KEY") as error:
        ChatClient(config(server, api_key_variable="MY_KEY"), tmp_path / "c")
    assert "secret" not in str(error.value)


def test_no_other_key_of_the_environment_is_sent(server, tmp_path, monkeypatch):
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}")
    run(config(server, api_key_variable="UNSET_KEY"), tmp_path / "c", [ask("a")])
    assert KEY not in str(server.seen[0][0])


def test_a_netrc_entry_does_not_take_the_keys_place(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run(config(server), tmp_path / "c", [ask("a")])
    assert server.seen[0][0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (status(404, "no such model"), "no such model"),
        (raw(b'{"error": {"message": "pay first", "code": "insufficient_quota"}}', 429), "pay first"),
        (status(307, "elsewhere", Location="http://127.0.0.1:1/v1"), "307"),
    ],
    ids=["404", "quota", "redirect"],
)
def test_what_can_not_pass_is_not_tried_again(server, tmp_path, fault, word):
    server.fault_for = lambda body: fault
    with pytest.raises(InputError, match=word):
        run(config(server, concurrency=1), tmp_path / "c", [ask("a")])
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (status(400, "too long"), "refused"),
        (raw(b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'), "refused"),
        (raw(b"{}"), "malformed"),
        (status(500), "unanswered"),
    ],
    ids=["400", "filter", "malformed", "500"],
)
def test_one_request_that_fails_does_not_end_the_run(server, tmp_path, fault, reason):
    server.fault_for = lambda body: fault if body["messages"][-1]["content"] == "bad" else None

    async def sleep(seconds):
        await asyncio.sleep(0.02)  # others are answered meanwhile

    outcomes, client = run(config(server), tmp_path / "c", [ask("bad"), ask("a"), ask("b")], sleep)
    assert isinstance(outcomes[0], Failure) and outcomes[0].reason == reason
    assert [o.text for o in outcomes[1:]] == ["reply to a", "reply to b"]
    assert client.spending.failed == 1
    assert len(list(ReplyCache(tmp_path / "c").requests())) == 2


def test_too_many_failures_in_a_row_end_the_run(server, tmp_path):
    server.fault_for = lambda body: status(400, "bad field")
    with pytest.raises(InputError, match="3 requests in a row failed, the last: status 400: bad field"):
        run(config(server, failures_in_a_row=3, concurrency=1), tmp_path / "c", [ask(str(i)) for i in range(9)])
    assert len(server.seen) == 3


def test_tokens_are_counted_and_priced(server, tmp_path):
    settings = config(server, prompt_price=2.0, completion_price=6.0)
    _, client = run(settings, tmp_path / "c", [ask("a"), ask("b")])
    assert (client.spending.prompt_tokens, client.spending.completion_tokens) == (20, 10)
    assert client.spending.cost == pytest.approx((20 * 2 + 10 * 6) / 1e6)
    _, again = run(settings, tmp_path / "c", [ask("a"), ask("b")])
    assert again.spending.cost == 0
    assert again.cost == pytest.approx(client.cost)


def test_a_reply_without_counts_is_charged_by_its_upper_bound(server, tmp_path):
    server.usage = None
    _, client = run(config(server), tmp_path / "c", [ask("ü" * 50, max_tokens=9)])
    assert client.spending.uncounted == 1
    assert client.spending.prompt_tokens >= 100
    assert client.spending.completion_tokens == 9


def test_a_budget_is_never_passed_and_counts_earlier_runs(server, tmp_path):
    # A request may cost 33 + 5 tokens and does cost 10 + 5, at one unit a token.
    settings = config(server, prompt_price=1e6, completion_price=1e6, budget=100.0)
    done = []
    for _ in range(2):
        with ChatClient(settings, tmp_path / "c") as client, pytest.raises(BudgetSpentError, match="100 is spent") as e:
            done.append([o for _, o in client.complete((i, ask(str(i), max_tokens=5)) for i in range(20))])
        assert "\n" not in str(e.value)
        assert 62 < client.cost <= 100
    assert len(server.seen) == 5  # the sixth could have cost more than the 25 that were left
    assert done == []


def test_all_replies_within_the_budget_are_yielded_before_it_ends_the_run(server, tmp_path):
    settings = config(server, prompt_price=1e6, completion_price=1e6, budget=100.0)
    got = []
    with ChatClient(settings, tmp_path / "c") as client, pytest.raises(BudgetSpentError):
        for i, _ in client.complete((i, ask(str(i), max_tokens=5)) for i in range(20)):
            got.append(i)
    assert got == [0, 1, 2, 3, 4]


def test_an_iterator_closed_early_sends_no_more(tmp_path):
    with LLMServer(delay=0.02) as server, ChatClient(config(server, concurrency=1), tmp_path / "c") as client:
        outcomes = client.complete((i, ask(str(i))) for i in range(100))
        next(outcomes)
        outcomes.close()
        time.sleep(0.3)
        assert len(server.seen) <= 3


def test_a_killed_process_loses_no_reply(server, tmp_path):
    server.fault_for = lambda body: hang if len(server.seen) > 5 else None
    program = f"""
from class_jax.llm.chat import ChatRequest
from class_jax.llm.client import ChatClient, EndpointConfig
config = EndpointConfig(url={server.url!r}, model="m", concurrency=1)
with ChatClient(config, {str(tmp_path / "c")!r}) as client:
    list(client.complete((i, ChatRequest((("user", str(i)),))) for i in range(9)))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    while len(server.seen) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    server.fault_for = lambda body: None
    outcomes, client = run(config(server), tmp_path / "c", [ask(str(i)) for i in range(9)])
    assert [o.text for o in outcomes] == [f"reply to {i}" for i in range(9)]
    assert (client.spending.cached, client.spending.replies) == (5, 4)


@pytest.mark.parametrize("name", ["c", "c/replies.sqlite"], ids=["file", "database"])
def test_what_is_no_cache_is_named(server, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("no database, only text" * 100)
    with pytest.raises(InputError, match=str(tmp_path / "c")) as error:
        ChatClient(config(server), tmp_path / "c")
    assert "\n" not in str(error.value)
    assert path.read_text() == "no database, only text" * 100


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"url": "localhost:8000"}, "url"),
        ({"url": "http://me:secret@host/v1"}, "password"),
        ({"url": "http://host/v1?key=secret"}, "query"),
        ({"model": ""}, "model"),
        ({"concurrency": 0}, "concurrency"),
        ({"first_wait": -1}, "first_wait"),
        ({"budget": 1.0}, "prices"),
    ],
)
def test_settings_that_can_not_work_are_refused(settings, word):
    with pytest.raises(InputError, match=word) as error:
        EndpointConfig(**{"model": "m"} | settings)
    assert "secret" not in str(error.value)


def test_a_missing_package_is_named_with_its_extra(server, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "class_jax.llm.connection")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"openai.*pip install 'class-jax\[llm\]'") as error:
        ChatClient(config(server), tmp_path / "c")
    assert "\n" not in str(error.value)


def test_the_fingerprint_is_of_the_model_not_the_address():
    one = EndpointConfig(model="m")
    assert one.fingerprint == EndpointConfig(model="m", url="http://other/v1", concurrency=2).fingerprint
    assert one.fingerprint != EndpointConfig(model="n").fingerprint
    assert one.fingerprint != EndpointConfig(model="m", body={"top_p": 1}).fingerprint
    assert json.dumps(one.fingerprint)
