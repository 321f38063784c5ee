# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What is wrong with a command line, in one line."""

from typing import Any

import typer
from typer.core import TyperCommand

from class_jax.errors import InputError


class Command(TyperCommand):
    """A command that reports all of its missing options and arguments at once."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Parses the command line.

        Raises:
          InputError: naming everything that is required and not there.
        """
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter:
            missing = self._missing(ctx, given)
            if not missing:
                raise
            raise InputError(f"missing: {', '.join(missing)}", remedy=f"see {ctx.command_path} --help") from None

    def _missing(self, ctx: typer.Context, args: list[str]) -> list[str]:
        values, _, _ = self.make_parser(ctx).parse_args(args=args)
        required = [param for param in self.get_params(ctx) if param.required]
        return [_shown(param) for param in required if param.value_is_missing(param.consume_value(ctx, values)[0])]


def _shown(param: Any) -> str:
    """An option by its longest spelling, an argument as in the usage line."""
    return max(param.opts, key=len) if param.param_type_name == "option" else param.display_name_raw.upper()


def describe(error: typer.TyperException) -> str:
    """A usage error in one line, with the nearest right spelling where there is one."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    return f"{message.rstrip('.?')}; see {context.command_path} --help" if "Did you mean" not in message else message
