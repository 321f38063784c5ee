# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Gin's errors in one line: the file and line, the name at fault, and the nearest right one."""

import inspect
import re
import sys
from collections.abc import Sequence

import gin
from class_jax.errors import InputError, nearest

_PLACE = re.compile(r'\s*In (?:file "(?P<file>.+?)"|bindings string), line (?P<line>\d+)')
_NO_MACRO = re.compile(r"No bindings specified for '(?P<name>[^']+)/gin\.macro'")
_REQUIRED = re.compile(r"(?P<name>\S+) set to `%gin.REQUIRED`")
_MISSING = re.compile(r"(?P<name>\w+)\(\) missing \d+ required [\w-]+ arguments?: (?P<arguments>[^\n]+)")
_NO_PARAMETER = re.compile(r"Configurable '(?P<name>[^']+)' doesn't have a parameter named '(?P<parameter>[^']+)'")
_NO_ATTRIBUTE = re.compile(r"<module '(?P<module>[\w.]+)'.*> has no attribute (?P<name>\w+)")
_NO_IMPORT = re.compile(r"'(?P<name>\w+)' was not provided by an import statement")
_SET_IT = "set it in the file, or by --gin.{}=VALUE (strings need quotes of their own)"


def explained(error: BaseException, files: Sequence[str]) -> InputError:
    """What gin raised for `files` and the command line's bindings, as one line."""
    text = str(error)
    file, line = ", ".join(files), None
    if place := _PLACE.search(text):
        file, line = place["file"] or "--gin", int(place["line"])
        file = file if place["file"] else None
    if found := _NO_MACRO.search(text):
        return InputError("is not set", file=file, key=found["name"], remedy=_SET_IT.format(found["name"]))
    if found := _REQUIRED.search(text):
        return InputError("must be set", file=file, key=found["name"], remedy=_SET_IT.format(found["name"]))
    if found := _MISSING.search(text):
        names = found["arguments"].rstrip(".")
        return InputError(f"needs {names}", file=file, key=found["name"], remedy="bind them in the file")
    if found := _NO_PARAMETER.search(text):
        problem = f"has no setting {found['parameter']!r}"
        remedy = nearest(found["parameter"], _parameters(found["name"]))
        return InputError(problem, file=file, line=line, key=found["name"], remedy=remedy)
    if found := _NO_ATTRIBUTE.search(text):
        names = [name for name in dir(sys.modules.get(found["module"])) if not name.startswith("_")]
        remedy = nearest(found["name"], names)
        return InputError(f"has no {found['name']!r}", file=file, line=line, key=found["module"], remedy=remedy)
    if found := _NO_IMPORT.search(text):
        problem = "is not imported in this file"
        return InputError(problem, file=file, line=line, key=found["name"], remedy="import it, or check its spelling")
    remedy = "see https://github.com/google/gin-config for the syntax" if isinstance(error, SyntaxError) else "mend it"
    return InputError(" ".join(text[: place.start() if place else 400].split()), file=file, line=line, remedy=remedy)


def _parameters(name: str) -> list[str]:
    try:
        return list(inspect.signature(gin.get_configurable(name)).parameters)
    except ValueError:
        return []
