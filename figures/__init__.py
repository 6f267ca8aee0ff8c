"""Every figure, the page with all of them, and the reproduction record: ``python -m figures``.

This package reads result files and calls :mod:`theory`; nothing imports it.
"""

# So that Ctrl-C during the imports of the command is no traceback.
import theory.support.interrupts  # noqa: F401
