# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Language models on this machine, with the interface of `class_jax.llm.client.ChatClient`."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from class_jax.errors import InputError, nearest
from class_jax.llm.chat import ChatRequest, Reply

T = TypeVar("T")
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LocalModelConfig:
    """A causal language model of `transformers`.

    Attributes:
      model: its folder or its name on the hub.
      batch_size: prompts at once.
      dtype: of the weights.
      device: as PyTorch names it; None takes a GPU where there is one.
      revision: of a hub's model.
    """

    model: str
    batch_size: int = 8
    dtype: str = "float32"
    device: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"{self.batch_size} is not positive", key="LocalModelConfig.batch_size")
        if self.dtype not in _DTYPES:
            remedy = nearest(self.dtype, _DTYPES)
            raise InputError(f"{self.dtype!r} is not known", key="LocalModelConfig.dtype", remedy=remedy)

    @property
    def fingerprint(self) -> str:
        """Digest of what decides on the replies besides the requests."""
        decisive = [self.model, self.revision, self.dtype, self.batch_size]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


class LocalChatModel:
    """Answers chat requests by a model in PyTorch, batch by batch.

    The model's chat template makes the prompt; a model without one (LLaMA-2-7B, say) is given only the texts,
    to continue. A reply's seed counts within its batch: another batch size can draw other replies.

    Raises:
      InputError: if PyTorch or `transformers` is not installed, or the model can't be opened.
    """

    def __init__(self, config: LocalModelConfig):
        try:
            import torch
            import transformers
        except ImportError as error:
            raise InputError("needs PyTorch and transformers", remedy="pip install 'class-jax[torch]'") from error
        self._torch = torch
        device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                config.model, revision=config.revision, padding_side="left"
            )
            model = transformers.AutoModelForCausalLM.from_pretrained(
                config.model, revision=config.revision, dtype=getattr(torch, config.dtype)
            )
            self._model = model.to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            problem = f"can't be opened ({str(error).splitlines()[0]})"
            raise InputError(problem, key=f"LocalModelConfig.model {config.model!r}") from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.config, self.fingerprint = config, config.fingerprint

    def complete(self, tagged: Iterable[tuple[T, ChatRequest]]) -> Iterator[tuple[T, Reply]]:
        """Answers requests in their order, each with what the caller tagged it with; reads one batch ahead.

        A batch's replies all have its longest `max_tokens` and its first request's temperature.
        """
        source = iter(tagged)
        while batch := list(itertools.islice(source, self.config.batch_size)):
            replies = self._answer([request for _, request in batch])
            yield from zip((tag for tag, _ in batch), replies, strict=True)

    def _answer(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        torch, tokenizer = self._torch, self._tokenizer
        prompts = [self._prompt(request) for request in requests]
        inputs = tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=tokenizer.chat_template is None
        )
        inputs = {name: inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        sampling: dict[str, Any] = {"do_sample": False}
        if requests[0].temperature > 0:
            sampling = {"do_sample": True, "temperature": requests[0].temperature}
            torch.manual_seed(sum(request.seed or 0 for request in requests))
        longest = max(request.max_tokens for request in requests)
        with torch.inference_mode():
            tokens = self._model.generate(
                **inputs, max_new_tokens=longest, pad_token_id=tokenizer.pad_token_id, **sampling
            )
        width, end = inputs["input_ids"].shape[1], self._model.generation_config.eos_token_id
        ends = set(end if isinstance(end, list) else [end])
        replies = []
        for row, mask in zip(tokens[:, width:].tolist(), inputs["attention_mask"].sum(1).tolist(), strict=True):
            length = next((i for i, token in enumerate(row) if token in ends), None)
            text = tokenizer.decode(row if length is None else row[:length], skip_special_tokens=True)
            replies.append(Reply(text, "length" if length is None else "stop", mask, len(row[:length])))
        return replies

    def _prompt(self, request: ChatRequest) -> str:
        if self._tokenizer.chat_template is None:
            return "\n\n".join(text for _, text in request.messages)
        messages = [{"role": role, "content": text} for role, text in request.messages]
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
