# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Answers questions from a corpus, with the passages that were read.

python examples/answer_questions.py runs/demo/stage2 runs/demo/data/store fi "Minkä maan pääkaupunki on Pariisi?"
"""

import sys

from class_jax import CLASS, Searcher

run, store, language, *questions = sys.argv[1:]
model = CLASS.from_pretrained(run)
corpus = Searcher.open(store, vocabulary=model.vocabulary)  # without an index, searched exactly
for answer in model.answer(questions, corpus, passages=5, languages=language):
    print(f"{answer.question} {answer.answer} (log-probability {answer.log_probability:.2f})")
    for passage in answer.passages:
        print(f"  score {passage.score:.2f}, attention {passage.attention:.3f}: {passage.title}")
