# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""One attempt at one chat request through the `openai` package: what its outcomes mean, and its bounds."""

import asyncio
import contextlib
import email.utils
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from class_jax.errors import InputError
from class_jax.llm.chat import RefusedError, TryAgainError
from class_jax.llm.endpoint import EndpointConfig

try:
    import httpx2
    import openai
    from anyio.from_thread import start_blocking_portal
except ImportError as error:
    raise InputError("the package openai is not installed", remedy="pip install 'class-jax[llm]'") from error

__all__ = ["Connection", "start_blocking_portal"]
_MAX_REPLY_BYTES = 16 * 2**20
_AGAIN = "run it again when this is mended: finished requests are kept"


class Connection:
    """Sends requests to one server, each once: no retries, no redirects, replies of bounded time and size.

    Args:
      config: its address, key, bounds and model.

    Raises:
      InputError: if the key can't be sent.
    """

    def __init__(self, config: EndpointConfig):
        self._config, self._key = config, _read_key(config.api_key_variable)
        self._options = {"headers": {"Authorization": f"Bearer {self._key}" if self._key else openai.Omit()}}
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=self._key,
            # Empty, for else it is read from the environment: only the key that the configuration names is sent.
            admin_api_key="",
            default_headers={"Accept-Encoding": "identity"},
            # The package's own retries don't end when the client is closed, hold no other request back, and leave out
            # replies that can't be read: `ChatClient` has its own.
            max_retries=0,
            http_client=httpx2.AsyncClient(
                timeout=httpx2.Timeout(config.timeout, connect=config.connect_timeout),
                limits=httpx2.Limits(max_connections=config.concurrency),
                # A redirected POST would lose its body, or take the key elsewhere.
                follow_redirects=False,
                event_hooks={"response": [_bound]},
            ),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def send(self, body: Mapping[str, Any]) -> tuple[str, str, tuple[int, int] | None]:
        """Sends a request's JSON.

        Returns:
          The reply's text, why it ended, and its prompt and completion tokens, None where the server does not count.

        Raises:
          TryAgainError: for an outcome that may pass.
          RefusedError: if the server rejects this request.
          InputError: if it will reject all of them.
        """
        try:
            # The timeouts above are of each read: a reply that trickles in needs one of its whole.
            async with asyncio.timeout(self._config.timeout):
                response = await self._client.post(
                    "/chat/completions", body=body, cast_to=httpx2.Response, options=self._options
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            raise TryAgainError(f"no reply within {self._config.timeout:g} s", down=True) from error
        except openai.APIStatusError as error:
            raise self._rejection(error.response) from error
        except openai.APIConnectionError as error:
            problem = f"the connection failed ({type(error.__cause__).__name__})"
            raise TryAgainError(problem, down=True) from error
        return self._read(response.content)

    def failed(self, problem: str) -> InputError:
        """An error that ends the run."""
        return InputError(problem, key=self._config.url, remedy=_AGAIN)

    def _rejection(self, response: httpx2.Response) -> Exception:
        """What a status other than 200 means."""
        status, content = response.status_code, response.content
        problem = f"status {status}: {self._message(content)}"
        if status in (408, 409, 425, 429) or status >= 500:
            if b"insufficient_quota" in content:
                return self.failed(problem)
            return TryAgainError(problem, down=True, wait=_retry_after(response.headers.get("Retry-After")))
        if status in (401, 403):
            variable = self._config.api_key_variable
            return self.failed(f"{problem}; the key is read from the environment variable {variable}")
        if status in (400, 413, 422):
            return RefusedError(problem)
        return self.failed(f"{problem} (model {self._config.model!r})")

    def _read(self, content: bytes) -> tuple[str, str, tuple[int, int] | None]:
        try:
            record = json.loads(content)
            choice = record["choices"][0]
            text = choice["message"]["content"]
            if text is None and choice.get("finish_reason") == "content_filter":
                raise RefusedError("kept back by the content filter")
            if not isinstance(text, str):
                raise TypeError("the content is no text")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            problem = f"the reply has no choices[0].message.content ({type(error).__name__}): {self._message(content)}"
            raise TryAgainError(problem, down=False) from error
        usage = record.get("usage")
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
        whole = len(counts) == 2 and all(type(count) is int and 0 <= count < 2**53 for count in counts)
        return text, str(choice.get("finish_reason") or "stop"), (counts[0], counts[1]) if whole else None

    def _message(self, content: bytes) -> str:
        """The error's own words in at most 200 characters, never the key."""
        text = content.decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            text = str(json.loads(text)["error"]["message"])
        text = text.replace(self._key, "...") if self._key else text
        return " ".join(text.split())[:200] or "no message"


class _BoundedStream(httpx2.AsyncByteStream):
    """A reply's body, which ends in an error where it is too large or ends early."""

    def __init__(self, stream: httpx2.AsyncByteStream):
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for block in self._stream:
                size += len(block)
                if size > _MAX_REPLY_BYTES:
                    raise TryAgainError(f"a reply of more than {_MAX_REPLY_BYTES} bytes", down=False)
                yield block
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError as error:
            raise TryAgainError(f"the reply ended early ({type(error).__name__})", down=False) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Bounds a reply before its body is read; a packed one, which nobody asked for, could unpack to any size."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TryAgainError("a packed reply, which was not asked for", down=False)
    response.stream = _BoundedStream(response.stream)


def _read_key(variable: str) -> str:
    """Returns the key in an environment variable, empty if it is unset; raises InputError if no header can hold it."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        problem = "the key has a line break, or a character that is not ASCII"
        raise InputError(problem, key=f"environment variable {variable}", remedy="copy the key again")
    return key


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or a date."""
    with contextlib.suppress(ValueError, TypeError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None
