# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Language models run here by transformers and PyTorch."""

import dataclasses

import pytest

from class_jax.errors import InputError
from class_jax.llm.client import ChatRequest
from class_jax.llm.local import LocalChatModel, LocalModelConfig


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A folder with a tiny random Llama and a tokenizer of bytes."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("llama")
    symbols = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(symbols),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.torch
def test_a_local_model_answers_like_a_client(tiny_model):
    model = LocalChatModel(LocalModelConfig(tiny_model, batch_size=2, device="cpu"))
    requests = [ChatRequest((("user", text),), max_tokens=6, seed=1) for text in ("a", "a longer prompt", "a")]
    greedy = list(model.complete(enumerate(requests)))
    assert [tag for tag, _ in greedy] == [0, 1, 2]
    # Padding beside a longer prompt changes nothing.
    assert greedy[0][1] == greedy[2][1]
    assert [reply.prompt_tokens for _, reply in greedy] == [1, 15, 1]
    assert all(reply.completion_tokens <= 6 and reply.finish_reason in ("stop", "length") for _, reply in greedy)
    drawn = [
        [reply.text for _, reply in model.complete([(0, dataclasses.replace(requests[0], temperature=5.0, seed=seed))])]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.torch
def test_a_missing_local_model_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        LocalChatModel(LocalModelConfig(str(tmp_path / "nowhere")))


def test_an_unknown_number_type_is_refused():
    with pytest.raises(InputError, match="bfloat16"):
        LocalModelConfig("m", dtype="bfloat61")
