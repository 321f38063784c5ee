# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax few-shot`: answers by a language model, from retrieved passages and a few answered questions."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, note, show
from class_jax.errors import InputError


def few_shot(
    questions: Annotated[Path, typer.Option(help="questions to answer: XOR-TyDi QA JSON lines")],
    run: Annotated[Path, typer.Option(help="passages: a TREC run, DPR's or CORA's ctxs, XOR-Retrieve's")],
    training: Annotated[Path, typer.Option(help="answered questions to draw shots from: XOR-TyDi QA JSON lines")],
    model: Annotated[str, typer.Option(help="its name at the endpoint, or with --local a folder or hub id")],
    out: Annotated[Path, typer.Option(help="folder to write: predictions, prompts, replies")],
    url: Annotated[str, typer.Option(help="OpenAI-compatible endpoint")] = "http://localhost:8000/v1",
    local: Annotated[bool, typer.Option("--local", help="run the model here, by transformers")] = False,
    corpus: Annotated[Path | None, typer.Option(help="TSV or token store with the texts of a TREC run")] = None,
    shots: Annotated[int, typer.Option(help="answered questions in a prompt", min=0)] = 5,
    mixed: Annotated[bool, typer.Option("--mixed", help="the same shots for all languages")] = False,
    passages: Annotated[int, typer.Option(help="passages in a prompt", min=0)] = 10,
    max_tokens: Annotated[int, typer.Option(help="of a reply", min=1)] = 64,
    concurrency: Annotated[int, typer.Option(help="requests at once at the endpoint", min=1)] = 16,
    batch: Annotated[int, typer.Option(help="prompts at once with --local", min=1)] = 8,
    dtype: Annotated[str, typer.Option(help="of the weights with --local")] = "bfloat16",
    seed: Annotated[int, typer.Option(help="of the shots")] = 0,
    as_json: AsJson = False,
) -> None:
    """Answers questions with a language model, as the few-shot baselines of the paper's Table 3.

    Replies of an endpoint are kept in OUT/replies: run again, only what is missing is asked. The key is read
    from the environment variable OPENAI_API_KEY.
    """
    from class_jax.evaluation.few_shot import FewShotConfig, answer_few_shot
    from class_jax.evaluation.runs import read_ranked_passages, with_texts
    from class_jax.questions.readers import read_xor

    asked = list(read_xor(questions))
    if not asked:
        raise InputError("no questions", file=questions)
    ranked = read_ranked_passages(run, asked)
    if not ranked.texts:
        if corpus is None:
            raise InputError("holds passage ids only", file=run, remedy="give the passages with --corpus")
        ranked = with_texts(ranked, corpus)
    config = FewShotConfig(shots, not mixed, passages, max_tokens=max_tokens, seed=seed)
    answered = list(read_xor(training)) if shots else []
    if local:
        from class_jax.llm.local import LocalChatModel, LocalModelConfig

        chat = LocalChatModel(LocalModelConfig(model, batch_size=batch, dtype=dtype))
        counts = answer_few_shot(asked, ranked.texts, answered, chat, out, config)
    else:
        from class_jax.llm.client import ChatClient, EndpointConfig

        with ChatClient(EndpointConfig(url, model, concurrency=concurrency), out / "replies") as client:
            counts = answer_few_shot(asked, ranked.texts, answered, client, out, config)
    text = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
    show({"out": out, "counts": counts}, text, as_json)
    predictions = out / "predictions.json"
    note(f"class-jax evaluate xor-full --questions {questions} --predictions {predictions}", as_json)
