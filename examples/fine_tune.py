# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Fine-tunes a model on questions with answers, from folder to folder; started again, it resumes.

python examples/fine_tune.py runs/demo/stage2/model xor_train_full.jsonl runs/demo/data/store runs/mine 1000
"""

import sys

from class_jax import CLASS
from class_jax.training.finetune import finetune

model, questions, passages, out, steps = sys.argv[1:]
finetune(model, questions, passages, out, steps=int(steps), batch_size=4, num_passages=4, learning_rate=1e-4)
CLASS.from_pretrained(out)
print(f"the fine-tuned model is in {out}")
