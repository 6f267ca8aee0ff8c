"""The public names of a sweep; their home is :mod:`theory.verification.sweep`."""

from theory.verification.sweep import Sweep, run_sweep

__all__ = ["Sweep", "run_sweep"]
