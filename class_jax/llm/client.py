# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A client of OpenAI-compatible endpoints (hosted, or a local vLLM): concurrent, cached, retried, costed.

```python
config = EndpointConfig(url="http://localhost:8000/v1", model="my-model")
with ChatClient(config, "replies.sqlite") as client:
    for name, outcome in client.complete(named_requests):  # in the order of the requests
        ...
```
"""

import collections
import concurrent.futures
import email.utils
import hashlib
import itertools
import json
import logging
import os
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from class_jax.errors import InputError
from class_jax.llm.reply_cache import Reply, ReplyCache

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MAX_REPLY_BYTES = 16 * 2**20
_AGAIN = "run it again when this is mended: finished requests are kept"
# What a chat template may add to each message, in tokens; only the budget's upper bound rests on it.
_TEMPLATE_TOKENS = 32


@dataclass(frozen=True)
class EndpointConfig:
    """Where a model answers, and how hard it may be asked.

    Attributes:
      url: the base address; requests go to ``{url}/chat/completions``.
      model: its name there.
      api_key_variable: name of the environment variable that holds the key; an unset one means no key.
      concurrency: requests in flight at once.
      connect_timeout, timeout: seconds to wait for the connection, and for the whole reply.
      attempts: how often one request is tried before it counts as failed.
      first_wait, longest_wait: seconds of back-off after the first failure, doubled after each further one, and the
        most that is waited at once, whatever ``Retry-After`` says.
      failures_in_a_row: so many failed requests without a good one between them end the run.
      prompt_price, completion_price: of a million tokens, in any currency.
      budget: the most that all replies of this model in the cache, earlier runs' too, may cost; None for no limit.
      body: further fields of the request's JSON; None as a value takes a field out (``{"temperature": None}``).
    """

    url: str = "http://localhost:8000/v1"
    model: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    connect_timeout: float = 10.0
    timeout: float = 120.0
    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    failures_in_a_row: int = 20
    prompt_price: float = 0.0
    completion_price: float = 0.0
    budget: float | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{self.url!r} is no address", key="EndpointConfig.url", remedy="start with http(s)://")
        if "@" in urllib.parse.urlsplit(self.url).netloc:
            # Not shown: it would print the password.
            remedy = f"put the key into the environment variable {self.api_key_variable}"
            raise InputError("an address with a password", key="EndpointConfig.url", remedy=remedy)
        if not self.model:
            raise InputError("no model is named", key="EndpointConfig.model", remedy="give its name at the endpoint")
        for name in ("concurrency", "attempts", "failures_in_a_row", "timeout", "connect_timeout"):
            if getattr(self, name) <= 0:
                raise InputError(f"{getattr(self, name)} is not positive", key=f"EndpointConfig.{name}")
        for name in ("first_wait", "longest_wait", "prompt_price", "completion_price", "budget"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{getattr(self, name)} is negative", key=f"EndpointConfig.{name}")
        if self.budget is not None and not (self.prompt_price or self.completion_price):
            remedy = "set prompt_price and completion_price"
            raise InputError("a budget needs prices", key="EndpointConfig.budget", remedy=remedy)

    @property
    def fingerprint(self) -> str:
        """Digest of what decides on the replies besides the requests: the model and the further fields."""
        decisive = json.dumps([self.model, dict(self.body)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(decisive.encode()).hexdigest()


@dataclass(frozen=True)
class ChatRequest:
    """One request. Equal requests have one reply: draw several by different seeds.

    Attributes:
      messages: (role, text) pairs.
      max_tokens: of the reply.
      temperature: 0 for the surest reply.
      seed: of the endpoint's sampling; left out of the request where None.
    """

    messages: tuple[tuple[str, str], ...]
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Failure:
    """A request that got no usable reply, while the endpoint as a whole works.

    Attributes:
      reason: ``refused`` (the endpoint will not take this request), ``malformed`` (its replies can't be read) or
        ``unanswered`` (it answers other requests only).
      detail: one line.
    """

    reason: str
    detail: str


class ChatModel(Protocol):
    """What answers chat requests: `ChatClient`, or `class_jax.llm.local.LocalChatModel`."""

    def complete(self, tagged: Iterable[tuple[T, ChatRequest]]) -> Iterator[tuple[T, Reply | Failure]]:
        """Yields the outcome of each request with its tag, in their order."""


@dataclass
class Spending:
    """What a client did. Tokens and cost are of this run's replies, cached ones left out.

    Attributes:
      replies, cached, failed: requests answered by the endpoint, answered from the cache, and not answered.
      retries: attempts beyond a request's first.
      prompt_tokens, completion_tokens: as the endpoint counted them.
      uncounted: replies without counts; they are charged by an upper bound.
      cost: in the currency of the prices.
    """

    replies: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    cost: float = 0.0


class BudgetSpentError(InputError):
    """The next request could cost more than is left."""


class _TryAgainError(Exception):
    """One attempt failed in a way that may pass; `down` where the endpoint itself did not answer."""

    def __init__(self, problem: str, *, down: bool, wait: float | None = None):
        super().__init__(problem)
        self.down = down
        self.wait = wait


class _RefusedError(Exception):
    """The endpoint understood one request and will not answer it."""


class _StoppedError(Exception):
    """The client was closed meanwhile."""


class ChatClient:
    """Answers chat requests through an endpoint and a cache.

    Threads wait for replies (one connection each); a 429 or 503 with ``Retry-After`` holds all of them back. A reply
    enters the cache when it arrives, so that whatever ends the program, nothing is paid for twice.

    Args:
      config: the endpoint.
      cache: path of the cache's file. Its keys are the requests' content with the model's name, not the address.
      sleep: how to wait some seconds; by default a wait that `close` ends early.

    Raises:
      InputError: if `requests` is not installed or the cache can't be used.
    """

    def __init__(
        self,
        config: EndpointConfig,
        cache: str | os.PathLike,
        *,
        sleep: Callable[[float], Any] | None = None,
    ):
        try:
            import requests
            import urllib3.exceptions
        except ImportError as error:
            raise InputError("the package requests is not installed", remedy="pip install class-jax[data]") from error
        self.config, self.fingerprint = config, config.fingerprint
        self.cache = ReplyCache(cache)
        self.spending = Spending()
        self._requests, self._urllib3 = requests, urllib3.exceptions
        self._key = os.environ.get(config.api_key_variable, "").strip()
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._lock = threading.Lock()
        self._held_until = 0.0
        self._failures_in_a_row = 0
        self._sessions = threading.local()
        self._pool = concurrent.futures.ThreadPoolExecutor(config.concurrency, thread_name_prefix="chat")
        self._earlier_cost = self._cost(*self.cache.tokens(config.model))
        self._reserved = 0.0
        self._end: InputError | None = None

    @property
    def cost(self) -> float:
        """What all replies of this model in the cache cost, earlier runs' too."""
        return self._earlier_cost + self.spending.cost

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Ends all waiting; requests in flight are finished and their replies kept."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.cache.close()

    def complete(self, tagged: Iterable[tuple[T, ChatRequest]]) -> Iterator[tuple[T, Reply | Failure]]:
        """Answers requests as they are read, in their order, each with what the caller tagged it with.

        A few times `concurrency` requests are read ahead. Closing the iterator early drops those not yet sent.

        Raises:
          BudgetSpentError: if the next request could pass the budget; all earlier ones were yielded.
          InputError: if the endpoint is down, refuses the key or the model, or fails `failures_in_a_row` times.
        """
        source = iter(tagged)
        waiting: collections.deque[tuple[T, concurrent.futures.Future]] = collections.deque()
        in_flight: dict[str, concurrent.futures.Future] = {}
        exhausted: BudgetSpentError | None = None
        try:
            while True:
                room = 4 * self.config.concurrency - len(waiting)
                for tag, request in itertools.islice(source, room if exhausted is None else 0):
                    try:
                        waiting.append((tag, self._submit(request, in_flight)))
                    except BudgetSpentError as error:
                        exhausted = error
                        break
                if not waiting:
                    break
                tag, future = waiting.popleft()
                yield tag, self._result(future)
        finally:
            for _, future in waiting:
                future.cancel()
        if exhausted is not None:
            raise exhausted

    def _result(self, future: "concurrent.futures.Future[Reply | Failure]") -> Reply | Failure:
        try:
            return future.result()
        except (_StoppedError, concurrent.futures.CancelledError) as error:
            # Another request met what ended the run.
            raise self._end or InputError("the client was closed meanwhile", key=self.config.url) from error

    def _submit(
        self, request: ChatRequest, in_flight: dict[str, concurrent.futures.Future]
    ) -> "concurrent.futures.Future[Reply | Failure]":
        """Answers from the cache or from an equal request in flight, else sends it; waits while the budget is tight."""
        body = self._body(request)
        key = hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        with self._lock:
            if key in in_flight:
                return in_flight[key]
        cached = self.cache.get(key)
        if cached is not None:
            self.spending.cached += 1
            done: concurrent.futures.Future = concurrent.futures.Future()
            done.set_result(cached)
            return done
        bound = self._upper_bound(request)
        self._reserve(self._cost(*bound), in_flight)
        future = self._pool.submit(self._answer, key, body, bound)

        def settle(_: concurrent.futures.Future) -> None:
            with self._lock:
                in_flight.pop(key, None)
                self._reserved -= self._cost(*bound)

        with self._lock:
            in_flight[key] = future
        future.add_done_callback(settle)
        return future

    def _reserve(self, most: float, in_flight: dict[str, concurrent.futures.Future]) -> None:
        while True:
            with self._lock:
                left = None if self.config.budget is None else self.config.budget - self.cost - self._reserved
                if left is None or most <= left:
                    self._reserved += most
                    return
                running = list(in_flight.values())
            if not running:
                raise BudgetSpentError(
                    f"the budget of {self.config.budget:g} is spent: {self.cost:.4f} so far, {most:.4f} for the next "
                    "request at most",
                    key="EndpointConfig.budget",
                    remedy="raise it and run again: finished requests are kept",
                )
            concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body = {
            "model": self.config.model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            **self.config.body,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        prices = self.config.prompt_price, self.config.completion_price
        return (prompt_tokens * prices[0] + completion_tokens * prices[1]) / 1e6

    @staticmethod
    def _upper_bound(request: ChatRequest) -> tuple[int, int]:
        """Tokens that a request can cost at most: no tokenizer makes more tokens than bytes."""
        prompt = sum(len(text.encode()) + _TEMPLATE_TOKENS for _, text in request.messages)
        return prompt, request.max_tokens

    def _answer(self, key: str, body: dict[str, Any], bound: tuple[int, int]) -> Reply | Failure:
        """Tries one request until it is answered, refused or out of attempts (runs in a thread)."""
        answered_before = self.spending.replies
        try:
            reply = self._attempts(body, bound)
        except _RefusedError as error:
            return self._failed(Failure("refused", str(error)))
        except _TryAgainError as error:
            if error.down and self.spending.replies == answered_before:
                raise self._fatal(f"{error} ({self.config.attempts} attempts)") from error
            return self._failed(Failure("unanswered" if error.down else "malformed", str(error)))
        self.cache.put(key, body, reply)
        with self._lock:
            self._failures_in_a_row = 0
            self.spending.replies += 1
            self.spending.prompt_tokens += reply.prompt_tokens
            self.spending.completion_tokens += reply.completion_tokens
            self.spending.cost += self._cost(reply.prompt_tokens, reply.completion_tokens)
        return reply

    def _failed(self, failure: Failure) -> Failure:
        with self._lock:
            self.spending.failed += 1
            self._failures_in_a_row += 1
            hopeless = self._failures_in_a_row >= self.config.failures_in_a_row
        if hopeless:
            raise self._fatal(f"{self.config.failures_in_a_row} requests in a row failed, the last: {failure.detail}")
        return failure

    def _attempts(self, body: dict[str, Any], bound: tuple[int, int]) -> Reply:
        for attempt in itertools.count(1):
            self._wait(self._held_until - time.monotonic())
            try:
                return self._send(body, bound)
            except _TryAgainError as error:
                if attempt == self.config.attempts:
                    raise
                with self._lock:
                    self.spending.retries += 1
                # Half of the back-off is random, so that requests that failed together don't come back together.
                wait = min(self.config.first_wait * 2 ** (attempt - 1), self.config.longest_wait)
                wait *= random.uniform(0.5, 1)
                if error.wait is not None:
                    wait = max(wait, min(error.wait, self.config.longest_wait))
                    with self._lock:
                        self._held_until = max(self._held_until, time.monotonic() + wait)
                _log.info("attempt %d of %d failed (%s)", attempt, self.config.attempts, error)
                self._wait(wait)
        raise AssertionError("unreachable")

    def _wait(self, seconds: float) -> None:
        if seconds > 0 and not self._stop.is_set():
            self._sleep(seconds)
        if self._stop.is_set():
            raise _StoppedError

    def _send(self, body: dict[str, Any], bound: tuple[int, int]) -> Reply:
        errors = self._requests.exceptions
        try:
            status, headers, content = self._post(body)
        except (errors.Timeout, self._urllib3.ReadTimeoutError) as error:
            raise _TryAgainError(f"no reply within {self.config.timeout:g} s", down=True) from error
        except self._urllib3.HTTPError as error:
            raise _TryAgainError(f"the reply broke off ({type(error).__name__})", down=False) from error
        except errors.RequestException as error:
            raise _TryAgainError(f"the connection failed ({type(error).__name__})", down=True) from error
        if status == 200:
            return self._read(content, bound)
        problem = f"status {status}: {self._message(content)}"
        if status in (408, 409, 425, 429) or status >= 500:
            if b"insufficient_quota" in content:
                raise self._fatal(problem)
            raise _TryAgainError(problem, down=True, wait=_retry_after(headers.get("Retry-After")))
        if status in (401, 403):
            raise self._fatal(
                f"{problem}; the key is read from the environment variable {self.config.api_key_variable}"
            )
        if status in (400, 413, 422):
            raise _RefusedError(problem)
        raise self._fatal(f"{problem} (model {self.config.model!r})")

    def _post(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        session = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = self._requests.Session()
            # Given here and not as a header, for else an entry in ~/.netrc would take the key's place.
            session.auth = self._authorise
        deadline = time.monotonic() + self.config.timeout
        timeouts = (self.config.connect_timeout, self.config.timeout)
        url = self.config.url.rstrip("/") + "/chat/completions"
        # A redirected POST would lose its body, or take the key elsewhere.
        with session.post(url, json=body, timeout=timeouts, stream=True, allow_redirects=False) as response:
            content = bytearray()
            # The timeout above is for each read: a reply that trickles in needs a deadline of its own, and reads that
            # end with what has come (`iter_content` would wait for whole blocks).
            while block := response.raw.read1(2**16, decode_content=True):
                content += block
                if time.monotonic() > deadline:
                    raise self._requests.exceptions.Timeout
                if len(content) > _MAX_REPLY_BYTES:
                    raise _TryAgainError(f"a reply of more than {_MAX_REPLY_BYTES} bytes", down=False)
            return response.status_code, response.headers, bytes(content)

    def _authorise(self, request: Any) -> Any:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _read(self, content: bytes, bound: tuple[int, int]) -> Reply:
        try:
            record = json.loads(content)
            choice = record["choices"][0]
            text = choice["message"]["content"]
            if text is None and choice.get("finish_reason") == "content_filter":
                raise _RefusedError("kept back by the content filter")
            if not isinstance(text, str):
                raise TypeError("the content is no text")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            problem = f"the reply has no choices[0].message.content ({type(error).__name__}): {self._message(content)}"
            raise _TryAgainError(problem, down=False) from error
        usage = record.get("usage")
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
        if len(counts) != 2 or not all(type(count) is int and count >= 0 for count in counts):
            counts = list(bound)
            with self._lock:
                self.spending.uncounted += 1
        return Reply(text, str(choice.get("finish_reason") or "stop"), *counts)

    def _message(self, content: bytes) -> str:
        """The error's own words in at most 200 characters, never the key."""
        text = content.decode("utf-8", "replace")
        try:
            record = json.loads(text)
            text = str(record["error"]["message"])
        except (ValueError, KeyError, TypeError):
            pass
        text = text.replace(self._key, "...") if self._key else text
        return " ".join(text.split())[:200] or "no message"

    def _fatal(self, problem: str) -> InputError:
        """The error that ends the run: all waiting stops, and every other request is given it too."""
        with self._lock:
            self._end = self._end or InputError(problem, key=self.config.url, remedy=_AGAIN)
        self._stop.set()
        return self._end


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
