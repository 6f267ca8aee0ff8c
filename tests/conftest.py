"""Shared by all tests."""

from __future__ import annotations

import os

# Compiled kernels must not depend on the machine's idle cores while tests run beside one another.
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

from hypothesis import settings

settings.register_profile("project", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("project")
