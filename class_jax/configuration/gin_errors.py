# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Gin's errors in one line: the file and line, the name at fault, and the nearest right one."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Sequence
from tokenize import TokenError

import gin
from class_jax.errors import InputError, nearest

_PLACE = re.compile(r'\s*In (?:file "(?P<file>.+?)",|bindings string) line (?P<line>\d+)')
_NO_MACRO = re.compile(r"No bindings specified for '(?P<name>[^']+)/gin\.macro'")
_REQUIRED = re.compile(r"(?P<name>\S+) set to `%gin.REQUIRED`")
_MISSING = re.compile(r"(?P<name>\w+)\(\) missing \d+ required [\w-]+ arguments?: (?P<arguments>[^\n]+)")
_NO_PARAMETER = re.compile(r"Configurable '(?P<name>[^']+)' doesn't have a parameter named '(?P<parameter>[^']+)'")
_NO_ATTRIBUTE = re.compile(r"<module '(?P<module>[\w.]+)'.*> has no attribute (?P<name>\w+)")
_NO_IMPORT = re.compile(r"'(?P<name>\w+)' was not provided by an import statement")
_NO_FILE = re.compile(r"Unable to open file: (?P<name>.+?)\. Searched")
_SET_IT = "set it in the file, or by --gin.{}=VALUE (strings need quotes of their own)"


def explained(error: BaseException, files: Sequence[str]) -> InputError:
    """What gin raised for `files` and the command line's bindings, as one line."""
    text = str(error)
    file: str | None = ", ".join(files)
    line: int | None = None
    if place := _PLACE.search(text):
        file, line = (place["file"], int(place["line"])) if place["file"] else (None, None)
    if isinstance(error, TokenError):
        problem, (line, _) = error.args
        return InputError(problem, file=file, line=line, remedy="look for a bracket or quote that is not closed")
    for pattern, explain in _EXPLANATIONS:
        if found := pattern.search(text):
            key, problem, remedy = explain(found)
            return InputError(problem, file=file, line=line, key=key, remedy=remedy)
    problem = " ".join(text[: place.start() if place else 400].split())
    return InputError(problem, file=file, line=line, remedy="correct the file or the bindings")


_EXPLANATIONS = (
    (_NO_MACRO, lambda found: (found["name"], "is not set", _SET_IT.format(found["name"]))),
    (_REQUIRED, lambda found: (found["name"], "must be set", _SET_IT.format(found["name"]))),
    (_MISSING, lambda found: (found["name"], f"needs {found['arguments']}", "bind them in the file")),
    (_NO_FILE, lambda found: (None, f"includes {found['name']}, which is not there", "check the path")),
    (_NO_IMPORT, lambda found: (found["name"], "is not imported in this file", "import it, or check its spelling")),
    (
        _NO_PARAMETER,
        lambda found: (
            found["name"],
            f"has no setting {found['parameter']!r}",
            nearest(found["parameter"], _settings(found["name"])),
        ),
    ),
    (
        _NO_ATTRIBUTE,
        lambda found: (found["module"], f"has no {found['name']!r}", nearest(found["name"], _names(found["module"]))),
    ),
)


def _settings(configurable: str) -> list[str]:
    try:
        made = gin.get_configurable(configurable)
    except ValueError:
        return []
    if dataclasses.is_dataclass(made):
        return [field.name for field in dataclasses.fields(made)]
    return list(inspect.signature(made).parameters)


def _names(module: str) -> list[str]:
    return [name for name in dir(sys.modules.get(module)) if not name.startswith("_")]
