# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Mutations that Cosmic Ray has not: code on arrays has few operators and many calls."""

from collections.abc import Iterator

import parso
from cosmic_ray.operators.operator import Example, Operator

Span = tuple[tuple[int, int], tuple[int, int]]


def _arguments(trailer) -> list:
    """The arguments of a call's parentheses."""
    inside = trailer.children[1]
    return [x for x in (inside.children if inside.type == "arglist" else [inside]) if x != ","]


def _parsed(code: str, instead_of):
    """The node of a piece of code, with the blanks and comments that precede the node it replaces."""
    node = parso.parse(code).children[0]
    node.get_first_leaf().prefix = instead_of.get_first_leaf().prefix
    return node


def _is_call(node) -> bool:
    return node.type == "trailer" and node.children[0] == "(" and len(node.children) == 3


def _is_keyword(argument) -> bool:
    return argument.type == "argument" and argument.children[1] == "="


class DropKeyword(Operator):
    """Leaves a keyword argument of a call to its default; `remedy`, which is prose, stays."""

    def mutation_positions(self, node) -> Iterator[Span]:
        for argument in self._droppable(node):
            yield argument.start_pos, argument.end_pos

    def mutate(self, node, index):
        dropped = self._droppable(node)[index]
        kept = [x.get_code().strip() for x in _arguments(node) if x is not dropped]
        return parso.parse(f"f({', '.join(kept)})").children[0].children[-1]

    @staticmethod
    def _droppable(node) -> list:
        arguments = _arguments(node) if _is_call(node) else []
        return [x for x in arguments if _is_keyword(x) and x.children[0].value != "remedy"]

    @classmethod
    def examples(cls):
        return (Example("f(x, axis=0, key=k)", "f(x, key=k)"), Example("f(x, axis=0, key=k)", "f(x, axis=0)", 1))


class DropStatement(Operator):
    """Replaces a call whose result is not used, an assignment like `+=`, or a `raise` by `pass`."""

    def mutation_positions(self, node) -> Iterator[Span]:
        if self._is_droppable(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return _parsed("pass", node)

    @staticmethod
    def _is_droppable(node) -> bool:
        if node.type == "atom_expr":
            return node.parent.type in ("simple_stmt", "file_input") and _is_call(node.children[-1])
        return node.type == "raise_stmt" or (
            node.type == "expr_stmt" and node.children[1].type == "operator" and len(node.children[1].value) > 1
        )

    @classmethod
    def examples(cls):
        return (Example("x += 1", "pass"), Example("check(x)", "pass"), Example("raise f(x)", "pass"))


class UnwrapCall(Operator):
    """Replaces a call by its first argument, and a method's call without positional arguments by the object."""

    def mutation_positions(self, node) -> Iterator[Span]:
        if node.type == "atom_expr" and self._inside(node) is not None:
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return _parsed(f"({self._inside(node).strip()})", node)

    @staticmethod
    def _inside(node) -> str | None:
        last = node.children[-1]
        if last.type != "trailer" or last.children[0] != "(":
            return None
        arguments = _arguments(last) if len(last.children) == 3 else []
        if arguments and not _is_keyword(arguments[0]):
            return None if arguments[0].type == "argument" else arguments[0].get_code()
        is_method = len(node.children) > 2 and node.children[-2].children[0] == "."
        return "".join(x.get_code() for x in node.children[:-2]) if is_method else None

    @classmethod
    def examples(cls):
        return (
            Example("y = fold_in(key, step)", "y = (key)"),
            Example("y = x.mean(axis=1) + 1", "y = (x) + 1"),
        )


OPERATORS = {operator.__name__: operator for operator in (DropKeyword, DropStatement, UnwrapCall)}
