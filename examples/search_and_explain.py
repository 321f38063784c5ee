# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Finds passages, and shows token by token why the best one was found (multi-vector models).

python examples/search_and_explain.py runs/demo/stage2 runs/demo/data/store fi "Minkä maan pääkaupunki on Pariisi?"
"""

import sys

from class_jax import CLASS, Searcher

run, store, language, question = sys.argv[1:]
model = CLASS.from_pretrained(run)
corpus = Searcher.open(store, vocabulary=model.vocabulary)
found = model.retrieve([question], corpus, passages=5, languages=language)
for row, score in zip(found.rows[0], found.scores[0], strict=True):
    print(f"{score:8.2f} {corpus.store.passage(row).title}")

best = corpus.store.passage(found.rows[0, 0]).id
explanation = model.explain(question, corpus, best, passages=5, language=language)
print(f"{best}: rank {explanation.rank}, score {explanation.score:.2f}, attention {explanation.attention:.3f}")
for match in explanation.matches:
    print(f"{match.score:8.2f} {match.question_token} -> {match.passage_token}")
