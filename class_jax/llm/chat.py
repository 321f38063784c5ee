# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What is asked of a chat model, and what comes back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class ChatRequest:
    """One request. Equal requests have one reply: draw several by different seeds.

    Attributes:
      messages: (role, text) pairs.
      max_tokens: of the reply.
      temperature: 0 for the most probable reply.
      seed: of the server's sampling; left out of the request where None.
    """

    messages: tuple[tuple[str, str], ...]
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """A model's reply.

    Attributes:
      text: the message.
      finish_reason: ``stop`` where the model ended by itself, ``length`` where the reply was cut off.
      prompt_tokens, completion_tokens: as charged.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Failure:
    """A request without a usable reply, while the server as a whole works.

    Attributes:
      reason: ``refused`` (the server rejects this request), ``malformed`` (its replies can't be read) or
        ``unanswered`` (it answers other requests only).
      detail: one line.
    """

    reason: str
    detail: str


class ChatModel(Protocol):
    """What answers chat requests: `class_jax.llm.client.ChatClient` or `class_jax.llm.local.LocalChatModel`."""

    def complete(self, tagged: Iterable[tuple[T, ChatRequest]]) -> Iterator[tuple[T, Reply | Failure]]:
        """Yields the outcome of each request with its tag, in the order of the requests."""


class TryAgainError(Exception):
    """One attempt failed in a way that may pass.

    Attributes:
      down: the server itself did not answer.
      wait: seconds that it asks to wait, if it does.
    """

    def __init__(self, problem: str, *, down: bool, wait: float | None = None):
        super().__init__(problem)
        self.down, self.wait = down, wait


class RefusedError(Exception):
    """The server understood one request and rejects it."""
