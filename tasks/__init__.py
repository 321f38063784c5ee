# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""seqio tasks and mixtures over question files.

`mixture("xor_full", "xor_train_full.jsonl")` is a value; its method `register` makes tasks `xor_full_ar`,
`xor_full_bn`, ... and the mixture `xor_full` with rates n_i^0.5 (paper section 3.1). A gin file picks one of
`tasks.standard.STANDARD` by name:

    MIXTURE = 'xor_full'
    tasks.mixture:
      name = %MIXTURE
      files = %TRAIN
    data.DataConfig.questions = @tasks.mixture()

Nothing is registered on import, and TensorFlow is imported by the first registration, not before.
"""

from class_jax.tasks.registration import Mixture
from class_jax.tasks.standard import STANDARD, benchmark, mixture

__all__ = ["STANDARD", "Mixture", "benchmark", "mixture"]
