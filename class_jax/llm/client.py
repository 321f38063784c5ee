# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A client of OpenAI-compatible servers (hosted, or a local vLLM): concurrent, cached, retried, with a budget.

```python
config = EndpointConfig(url="http://localhost:8000/v1", model="my-model")
with ChatClient(config, "replies") as client:
    for name, outcome in client.complete(named_requests):  # in the order of the requests
        ...
```
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from class_jax.errors import InputError
from class_jax.llm.chat import ChatRequest, Failure, RefusedError, Reply, TryAgainError
from class_jax.llm.endpoint import EndpointConfig

__all__ = ["BudgetSpentError", "ChatClient", "EndpointConfig", "Spending"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
# What a chat template may add to each message, in tokens; only the budget's upper bound rests on it.
_TEMPLATE_TOKENS = 32


@dataclass
class Spending:
    """What a client did. Tokens and cost are of this run's replies, cached ones left out.

    Attributes:
      replies, cached, failed: requests answered by the server, answered from the cache, and not answered.
      retries: attempts beyond a request's first.
      prompt_tokens, completion_tokens: as the server counted them.
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


class _StoppedError(Exception):
    """The client or the iterator was closed meanwhile."""


@dataclass
class _Call:
    """One call of `ChatClient.complete`: its requests in flight by their keys, and whether its iterator is closed."""

    in_flight: dict[str, "concurrent.futures.Future[Reply | Failure]"] = field(default_factory=dict)
    closed: bool = False


class ChatClient:
    """Answers chat requests through a server and a cache.

    The `openai` package's client sends them, in an event loop of a thread. A 429 or 503 with ``Retry-After`` holds all
    requests back. A reply enters the cache when it arrives: whatever ends the program, nothing is paid for twice.

    Args:
      config: the endpoint.
      cache: folder of the cache. Its keys are the requests' content with the model's name, not the address.
      sleep: waits some seconds before an attempt; by default a wait that `close` ends early.

    Raises:
      InputError: if `openai` is not installed, or the key or the cache can't be used.
    """

    def __init__(
        self,
        config: EndpointConfig,
        cache: str | os.PathLike,
        *,
        sleep: Callable[[float], Awaitable[Any]] | None = None,
    ):
        from class_jax.llm.cache import ReplyCache
        from class_jax.llm.connection import Connection, start_blocking_portal

        self.config, self.fingerprint = config, config.fingerprint
        self.spending = Spending()
        self._connection = Connection(config)
        self.cache = ReplyCache(cache)
        self._earlier_cost = self._cost(*self.cache.tokens(config.model))
        self._lock = threading.Lock()
        self._reserved = 0.0
        self._held_until = 0.0
        self._failures_in_a_row = 0
        self._end: InputError | None = None
        self._slots, self._stop = asyncio.Semaphore(config.concurrency), asyncio.Event()
        self._sleep = sleep or self._pause
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.cache.close)
        self._portal = self._closing.enter_context(start_blocking_portal())
        self._closing.callback(self._portal.call, self._drain)

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
        self._closing.close()

    async def _drain(self) -> None:
        self._stop.set()
        for _ in range(self.config.concurrency):
            await self._slots.acquire()
        await self._connection.close()
        self.cache.close()

    def complete(self, tagged: Iterable[tuple[T, ChatRequest]]) -> Iterator[tuple[T, Reply | Failure]]:
        """Answers requests as they are read, in their order, each with what the caller tagged it with.

        A few times `concurrency` requests are read ahead. Closing the iterator early drops those not yet sent.

        Raises:
          BudgetSpentError: if the next request could exceed the budget; all earlier ones were yielded.
          InputError: if the server is down, rejects the key or the model, or fails `failures_in_a_row` times.
        """
        source, call = iter(tagged), _Call()
        waiting: collections.deque[tuple[T, concurrent.futures.Future]] = collections.deque()
        exhausted: BudgetSpentError | None = None
        try:
            while True:
                room = 4 * self.config.concurrency - len(waiting)
                for tag, request in itertools.islice(source, room if exhausted is None else 0):
                    try:
                        waiting.append((tag, self._submit(request, call)))
                    except BudgetSpentError as error:
                        exhausted = error
                        break
                if not waiting:
                    break
                tag, future = waiting.popleft()
                yield tag, self._result(future)
        finally:
            call.closed = True
        if exhausted is not None:
            raise exhausted

    def _result(self, future: "concurrent.futures.Future[Reply | Failure]") -> Reply | Failure:
        try:
            return future.result()
        except (_StoppedError, concurrent.futures.CancelledError) as error:
            # Another request has ended the run.
            raise self._end or InputError("the client was closed meanwhile", key=self.config.url) from error

    def _submit(self, request: ChatRequest, call: _Call) -> "concurrent.futures.Future[Reply | Failure]":
        """Answers from the cache or from an equal request in flight, else sends it; waits while the budget is tight."""
        body = self._body(request)
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self._lock:
            if key in call.in_flight:
                return call.in_flight[key]
        cached = self.cache.get(key)
        if cached is not None:
            self.spending.cached += 1
            done: concurrent.futures.Future = concurrent.futures.Future()
            done.set_result(cached)
            return done
        bound = self._upper_bound(request)
        self._reserve(self._cost(*bound), call)

        def settle(_: concurrent.futures.Future) -> None:
            with self._lock:
                call.in_flight.pop(key, None)
                self._reserved -= self._cost(*bound)

        future = self._portal.start_task_soon(self._answer, key, body, bound, call)
        with self._lock:
            call.in_flight[key] = future
        future.add_done_callback(settle)
        return future

    def _reserve(self, most: float, call: _Call) -> None:
        while True:
            with self._lock:
                left = None if self.config.budget is None else self.config.budget - self.cost - self._reserved
                if left is None or most <= left:
                    self._reserved += most
                    return
                running = list(call.in_flight.values())
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
        prompt = sum(len(text.encode(errors="replace")) + _TEMPLATE_TOKENS for _, text in request.messages)
        return prompt, request.max_tokens

    async def _answer(self, key: str, body: dict[str, Any], bound: tuple[int, int], call: _Call) -> Reply | Failure:
        """Tries one request until it is answered, rejected or out of attempts (runs in the event loop)."""
        async with self._slots:
            answered_before = self.spending.replies
            try:
                reply = await self._attempts(body, bound, call)
            except RefusedError as error:
                return self._failed(Failure("refused", str(error)))
            except TryAgainError as error:
                if error.down and self.spending.replies == answered_before:
                    raise self._fatal(self._connection.failed(f"{error} ({self.config.attempts} attempts)")) from error
                return self._failed(Failure("unanswered" if error.down else "malformed", str(error)))
            except InputError as error:
                raise self._fatal(error) from error
            self.cache.put(key, body, reply)
        self._failures_in_a_row = 0
        self.spending.replies += 1
        self.spending.prompt_tokens += reply.prompt_tokens
        self.spending.completion_tokens += reply.completion_tokens
        self.spending.cost += self._cost(reply.prompt_tokens, reply.completion_tokens)
        return reply

    def _failed(self, failure: Failure) -> Failure:
        self.spending.failed += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.config.failures_in_a_row:
            problem = f"{self.config.failures_in_a_row} requests in a row failed, the last: {failure.detail}"
            raise self._fatal(self._connection.failed(problem))
        return failure

    async def _attempts(self, body: dict[str, Any], bound: tuple[int, int], call: _Call) -> Reply:
        for attempt in itertools.count(1):
            await self._wait(self._held_until - time.monotonic(), call)
            try:
                text, finish_reason, counts = await self._connection.send(body)
                self.spending.uncounted += counts is None
                return Reply(text, finish_reason, *(counts or bound))
            except TryAgainError as error:
                if attempt == self.config.attempts:
                    raise
                self.spending.retries += 1
                # Half of the back-off is random, so that requests that failed together don't come back together.
                wait = min(self.config.first_wait * 2 ** (attempt - 1), self.config.longest_wait)
                wait *= random.uniform(0.5, 1)
                if error.wait is not None:
                    wait = max(wait, min(error.wait, self.config.longest_wait))
                    self._held_until = max(self._held_until, time.monotonic() + wait)
                _log.info("attempt %d of %d failed (%s)", attempt, self.config.attempts, error)
                await self._wait(wait, call)
        raise AssertionError("unreachable")

    async def _wait(self, seconds: float, call: _Call) -> None:
        if seconds > 0 and not self._stop.is_set():
            await self._sleep(seconds)
        if self._stop.is_set() or call.closed:
            raise _StoppedError

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _fatal(self, error: InputError) -> InputError:
        """The error that ends the run: all waiting stops, and every other request ends with it too."""
        self._end = self._end or error
        self._stop.set()
        return self._end
