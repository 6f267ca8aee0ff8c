"""What a figure is made from: committed result files, and theory data computed once.

A :class:`Sources` remembers every file it read, with its hash, for the figure's sidecar. Theory data
are cached under a hash of everything that decides them: the function's arguments and the text of its
module and of the modules of :mod:`theory` that it imports, directly or not. So a change to the command
line, the tables or the worst-case solver keeps the cache, and one to a simulator does not.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from figures.analysis.places import ROOT, cache_folder
from figures.analysis.shapes import checked
from theory.support.errors import UserError
from theory.support.files import plain, write_text
from theory.support.reading import read_bytes


class MissingResult(UserError):
    """A result file that is not there; the message names the command that makes it."""


@dataclass
class Sources:
    """The inputs of one figure.

    Attributes:
        root: folder that holds ``theory/results`` and ``deep/results``.
        cache: folder of computed data.
        quick: computed data at a small scale, for a look or a test.
        files: path relative to root -> SHA-256 of each file read.
        patterns: glob relative to root -> the paths that matched it.
        computed: function, arguments, key and whether the cache had it, of each data set computed.
    """

    root: Path = ROOT
    cache: Path = field(default_factory=cache_folder)
    quick: bool = False
    files: dict[str, str] = field(default_factory=dict)
    patterns: dict[str, list[str]] = field(default_factory=dict)
    computed: list[dict[str, Any]] = field(default_factory=list)

    def match(self, pattern: str) -> list[str]:
        """The result files that match a glob, relative to root."""
        self.patterns[pattern] = matching(self.root, pattern)
        return self.patterns[pattern]

    def read(self, path: str, command: str) -> dict[str, Any]:
        """A result file.

        Args:
            path: relative to root.
            command: what makes it, for the message.

        Raises:
            MissingResult: it is not there.
            UserError: it can't be read, is not JSON, or has not the shape of that file.
        """
        raw = self._bytes(path, command)
        try:
            content = checked(path, json.loads(raw))
        except UserError:
            raise
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}") from None
        self.files[path] = hashlib.sha256(raw).hexdigest()
        return content

    def read_lines(self, path: str, command: str) -> list[dict[str, Any]]:
        """A result file with a JSON object a line, at least one; arguments and errors as :meth:`read`."""
        raw = self._bytes(path, command)
        try:
            found = [json.loads(line) for line in raw.splitlines()]
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON, a value a line: {error}") from None
        if not found or not all(isinstance(value, dict) for value in found):
            raise UserError(f"{path} holds no JSON objects")
        self.files[path] = hashlib.sha256(raw).hexdigest()
        return [checked(path, value) for value in found]

    def _bytes(self, path: str, command: str) -> bytes:
        try:
            return read_bytes(self.root / path)
        except FileNotFoundError:
            raise MissingResult(f"{path} is missing; make it with: {command}") from None
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror or error}") from None

    def read_all(self, pattern: str, command: str) -> dict[str, dict[str, Any]]:
        """All result files that match a glob, by path, at least one; raises as :meth:`read`."""
        paths = self.match(pattern)
        if not paths:
            raise MissingResult(f"{pattern} is missing; make it with: {command}")
        return {path: self.read(path, command) for path in paths}

    def compute(self, function: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
        """``function(**arguments)``, from the cache where it is there.

        Args:
            function: returns a dict of numbers, strings, lists and arrays.
            arguments: plain values.

        Returns:
            The dict as JSON keeps it: lists for arrays, None for NaN.
        """
        key = cache_key(function, arguments)
        path = self.cache / f"{function.__name__}-{key[:16]}.json"
        found = self._cached(path)
        hit = found is not None
        if found is None:
            text = json.dumps(plain(function(**arguments)))
            write_text(path, text)
            found = json.loads(text)
        self.computed.append(
            {
                "function": f"{function.__module__}.{function.__name__}",
                "arguments": arguments,
                "key": key,
                "from_cache": hit,
            }
        )
        return found

    @staticmethod
    def _cached(path: Path) -> dict[str, Any] | None:
        """What the cache holds; None where it has nothing, or something that is no JSON object."""
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def matching(root: Path, pattern: str) -> list[str]:
    """The files below ``root`` that match a glob, relative to it, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


def cache_key(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """SHA-256 of the arguments and of every source text that the result depends on."""
    home = Path(inspect.getfile(function))
    texts = [home.read_text(), *(path.read_text() for path in imported_modules(home))]
    parts = [function.__name__, json.dumps(arguments, sort_keys=True), *texts]
    return hashlib.sha256("\0".join([*parts, np.__version__]).encode()).hexdigest()


@lru_cache(maxsize=64)
def imported_modules(source: Path, package: Path = ROOT / "theory") -> tuple[Path, ...]:
    """The files of a package that a source file imports, directly or through one another, sorted.

    Read from the text, so that nothing is imported for it and an import inside a function counts too.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        fresh = _direct_imports(waiting.pop(), package) - found
        found |= fresh
        waiting += fresh
    return tuple(sorted(found))


def _direct_imports(source: Path, package: Path) -> set[Path]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    files: set[Path] = set()
    for name in names:
        head, *rest = name.split(".")
        if head == package.name:
            files |= _files_of(package, rest)
    return files


def _files_of(package: Path, parts: list[str]) -> set[Path]:
    """The files behind ``package.part.part...``: the module's own, and the __init__ of its folders.

    A part that is neither a folder nor a module is a name defined in the __init__ before it. The
    package's own __init__ collects public names for notebooks, so it counts for such a name alone.
    """
    files: set[Path] = set()
    folder = package
    for part in parts:
        if (folder / part / "__init__.py").is_file():
            folder /= part
            files.add(folder / "__init__.py")
        else:
            module = folder / f"{part}.py"
            if module.is_file():
                files.add(module)
            break
    return files or {package / "__init__.py"}


def array(values: list[Any]) -> np.ndarray:
    """A list of :meth:`Sources.compute` or of a result file as floats; None is NaN."""
    special = {None: np.nan, "inf": np.inf, "-inf": -np.inf}
    return np.array([special.get(v, v) if not isinstance(v, float) else v for v in values], float)
