# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The few-shot baseline (paper section 4.3, Table 3): a language model, retrieved passages, a few answered questions.

The model is `llm.client.ChatClient` or `llm.local.LocalChatModel`. The paper gives no prompt; this one is
the project's own, and every prompt is written down with its reply.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from class_jax.common.files import replacing, write_json
from class_jax.corpus.inputs import LANGUAGES
from class_jax.errors import InputError
from class_jax.llm.chat import ChatModel, ChatRequest, Failure, Reply
from class_jax.questions.readers import Question
from class_jax.questions.selection import sample

_TASK = """\
Below are questions in {language} with their answers, then passages, then one more question. \
Answer that question in {language}, in the manner of the answers before: as few words as will do, and no explanation. \
The passages may be in other languages, and not all of them are of use.
Give the answer alone, on one line."""
_THOUGHT = re.compile(r".*</think>", re.DOTALL)
_LABEL = re.compile(r"^[\s*#>]*answer\s*\**\s*[:：]\s*\**\s*", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "『": "』", "'": "'", "‘": "’", "*": "*", "`": "`"}


@dataclass(frozen=True)
class FewShotConfig:
    """How a model is prompted.

    Attributes:
      shots: answered questions in the prompt (5 in the paper).
      per_language: draw them from the training questions in the question's language; else the same few, of whatever
        languages, are in every prompt. The paper does not say which.
      passages: of each question, the best ones. The paper does not say how many.
      passage_characters: longer passages are cut there.
      max_tokens: of a reply.
      seed: of the shots, and of the endpoint's sampling.
    """

    shots: int = 5
    per_language: bool = True
    passages: int = 10
    passage_characters: int = 2000
    max_tokens: int = 64
    seed: int = 0

    def __post_init__(self):
        for key in ("shots", "passages", "passage_characters", "max_tokens"):
            least = 0 if key in ("shots", "passages") else 1
            if getattr(self, key) < least:
                raise InputError(f"is {getattr(self, key)}", key=f"FewShotConfig.{key}", remedy=f"{least} or more")


def draw_shots(training: Iterable[Question], asked: Iterable[str], config: FewShotConfig) -> dict[str, list[Question]]:
    """Draws the answered questions of each language's prompts.

    Args:
      training: questions to draw from; those without an answer are skipped.
      asked: languages of the questions to answer.
      config: how many, and whether of each language.

    Returns:
      By language, `config.shots` questions.

    Raises:
      InputError: if there are too few, naming the language.
    """
    languages = sorted(set(asked))
    if not config.shots:
        return {language: [] for language in languages}
    usable = [question for question in training if question.answers]
    if not config.per_language:
        same = list(sample(usable, config.shots, seed=config.seed))
        return {language: same for language in languages}
    found = {}
    for language in languages:
        own = [question for question in usable if question.language == language]
        if len(own) < config.shots:
            problem = f"{len(own)} training questions with answers for {config.shots} shots"
            raise InputError(problem, key=language, remedy="ask for fewer shots, or mix the languages")
        found[language] = list(sample(own, config.shots, seed=config.seed))
    return found


def make_request(
    question: Question, passages: Sequence[str], shots: Sequence[Question], config: FewShotConfig
) -> ChatRequest:
    """Returns the request for one question: the task, the shots, the passages, the question."""
    blocks = [_TASK.format(language=LANGUAGES[question.language])]
    blocks += [f"Question: {shot.text}\nAnswer: {shot.answers[0]}" for shot in shots]
    # A blank line would end a passage's block.
    texts = [" ".join(text.split())[: config.passage_characters] for text in passages[: config.passages]]
    blocks += [f"Passage {number}: {text}" for number, text in enumerate(texts, start=1)]
    blocks.append(f"Question: {question.text}\nAnswer:")
    return ChatRequest((("user", "\n\n".join(blocks)),), config.max_tokens, 0.0, config.seed)


def read_answer(reply: str) -> str:
    """Returns the answer in a reply: its first line with text, without label, quotes and emphasis; else nothing.

    What a reasoning model thought before is left out, and so is a next question that a model without a chat template
    makes up.
    """
    lines = [_LABEL.sub("", line).strip() for line in _THOUGHT.sub("", reply).split("\n")]
    line = next((line for line in lines if line), "")
    while len(line) > 1 and _QUOTES.get(line[0]) == line[-1]:
        line = line[1:-1].strip()
    return line


def answer_few_shot(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    training: Iterable[Question],
    model: ChatModel,
    out: str | os.PathLike,
    config: FewShotConfig | None = None,
) -> dict[str, int]:
    """Answers questions by a language model; writes `out/predictions.json`, `prompts.jsonl` and `settings.json`.

    `prompts.jsonl` has a line for each question: its id and language, the messages, the reply, why it ended, and the
    answer read from it. The predictions are what `class-jax evaluate xor-full --predictions` takes; questions without a
    usable reply are left out of them, and so count as wrong.

    Args:
      questions: to answer.
      passages: texts by question id, best first; a question without any is asked with none.
      training: questions from which the shots are drawn.
      model: what answers.
      out: folder to write.
      config: the prompts.

    Returns:
      Counts: `answered`, `cut` (replies that ended at `max_tokens`), `empty` (replies without an answer), `failed`
      (requests without a reply), `without_passages`.

    Raises:
      InputError: if there are too few shots, or as the model and the disk do.
    """
    config = config or FewShotConfig()
    shots = draw_shots(training, (question.language for question in questions), config)
    counts: Counter[str] = Counter(dict.fromkeys(("answered", "cut", "empty", "failed", "without_passages"), 0))
    predictions: dict[str, str] = {}

    def requests() -> Iterator[tuple[tuple[Question, ChatRequest], ChatRequest]]:
        for question in questions:
            texts = passages.get(question.id, ())
            counts["without_passages"] += not texts
            request = make_request(question, texts, shots[question.language], config)
            yield (question, request), request

    out = Path(out)
    with (
        replacing(out / "prompts.jsonl") as log,
        tqdm(total=len(questions), unit="question", desc="few-shot", disable=None) as bar,
    ):
        for (question, request), outcome in model.complete(requests()):
            answer = _count(outcome, counts)
            if answer:
                predictions[question.id] = answer
            log.write(json.dumps(_line(question, request, outcome, answer), ensure_ascii=False) + "\n")
            bar.update()
    drawn = {language: [question.id for question in few] for language, few in shots.items()}
    write_json(out / "settings.json", {"config": asdict(config), "shots": drawn, "counts": dict(counts)})
    write_json(out / "predictions.json", predictions)
    return dict(counts)


def _count(outcome: Reply | Failure, counts: Counter[str]) -> str:
    """The answer of an outcome, empty if there is none."""
    if isinstance(outcome, Failure):
        counts["failed"] += 1
        return ""
    answer = read_answer(outcome.text)
    counts["cut"] += outcome.finish_reason == "length"
    counts["answered" if answer else "empty"] += 1
    return answer


def _line(question: Question, request: ChatRequest, outcome: Reply | Failure, answer: str) -> dict[str, object]:
    line = {"id": question.id, "language": question.language, "messages": [list(m) for m in request.messages]}
    if isinstance(outcome, Failure):
        return line | {"failure": outcome.reason, "detail": outcome.detail}
    return line | {"reply": outcome.text, "finish_reason": outcome.finish_reason, "answer": answer}
