"""The README's sweep on a cluster: the same checks, bit for bit, on every backend of joblib.

Dask and Ray are no dependencies: their tests skip where they are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import joblib
import pytest

from theory.support.errors import UserError
from theory.support.files import plain
from theory.verification.sweep import Sweep, run_sweep

SWEEP = Sweep(
    theorems=("T2", "T5"),
    problems=("logistic", "separable", "I0"),
    heterogeneity=("iid",),
    local_steps=(1, 3),
    rounds=6,
    seeds=4,
)
WHY = "no {0} here: pip install {0}, and run this test again"


@contextmanager
def _dask() -> Iterator[None]:
    pytest.importorskip("distributed", reason=WHY.format("distributed"))
    from distributed import Client, LocalCluster

    # Processes, as on a cluster; their workers must find this checkout.
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        yield


@contextmanager
def _ray() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason=WHY.format("ray"))
    from ray.util.joblib import register_ray

    register_ray()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}},
    )
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _plain(backend: str) -> Iterator[None]:
    with joblib.parallel_config(backend=backend):
        yield


def _digits(workers: int, report: Callable[[int, int], None] | None = None) -> str:
    return json.dumps(
        plain([asdict(check) for check in run_sweep(SWEEP, workers=workers, report=report)])
    )


@pytest.fixture(scope="module")
def serial() -> str:
    return _digits(1)


@pytest.mark.parametrize("backend", ["threading", "loky", "dask", "ray"])
def test_every_backend_gives_the_serial_checks_bit_for_bit(serial: str, backend: str) -> None:
    heard: list[tuple[int, int]] = []
    chosen = {"dask": _dask, "ray": _ray}.get(backend)
    with chosen() if chosen else _plain(backend):
        assert _digits(2, lambda done, total: heard.append((done, total))) == serial
    assert heard == [(i + 1, len(heard)) for i in range(len(heard))] and len(heard) >= 5


def test_multiprocessing_is_refused_before_it_forks() -> None:
    """It has no results one by one, and its workers would wait for threads that a fork leaves behind."""
    _digits(1)  # Kernels that ran: it is their threads.
    with _plain("multiprocessing"), pytest.raises(UserError, match="allowed: threading, loky"):
        _digits(2)
