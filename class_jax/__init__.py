# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""CLASS (arXiv 2402.16508) in JAX: one encoder-decoder that retrieves and answers across languages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from class_jax.api import CLASS, Answer, Searcher

__all__ = ["CLASS", "Answer", "Searcher", "__version__"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Imports what users import from here when they do: `import class_jax` itself stays light."""
    if name in __all__:
        from class_jax import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
