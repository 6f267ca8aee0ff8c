"""Shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Compiled kernels must not depend on the machine's idle cores while tests run beside one another.
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
# As in the commands: BLAS threads gain nothing on small matrices and wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from made_figures import Made

# A shell starts what runs in its background with Ctrl-C ignored, and so would all processes of the tests.
for _signal in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(
            _signal, signal.default_int_handler if _signal == signal.SIGINT else signal.SIG_DFL
        )

settings.register_profile("project", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of the tests go to a folder of their own, in subprocesses too."""
    os.environ["LOCAL_SGD_RATES_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["LOCAL_SGD_RATES_CACHE"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every figure, made once for all tests."""
    from made_figures import make_all

    return make_all(tmp_path_factory.mktemp("results"))
