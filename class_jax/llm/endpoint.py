# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Settings of a server of language models."""

import hashlib
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from class_jax.errors import InputError


@dataclass(frozen=True)
class EndpointConfig:
    """The server of a model, and how hard it may be asked.

    Attributes:
      url: the base address; requests go to ``{url}/chat/completions``.
      model: its name there.
      api_key_variable: name of the environment variable that holds the key; an unset one means no key.
      concurrency: requests in flight at once.
      connect_timeout, timeout: seconds to wait for the connection, and for the whole reply with it.
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
        if urllib.parse.urlsplit(self.url).query:
            # Not shown either: `?key=` is a usual place of keys.
            remedy = f"put a key into the environment variable {self.api_key_variable}"
            raise InputError("an address with a query", key="EndpointConfig.url", remedy=remedy)
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
