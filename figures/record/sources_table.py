"""The table of the result files that the record was made from."""

from __future__ import annotations

from figures.analysis.certificates import CERTIFY_COMMAND
from figures.analysis.sources import Sources
from figures.record.table import Table


def files(sources: Sources) -> Table:
    """Every result file behind the tables: what made it and its hash."""
    rows = []
    for path, digest in sorted(sources.files.items()):
        if path.endswith(".jsonl"):
            # Certificates prove themselves; which commit found them does not matter.
            rows.append((path, CERTIFY_COMMAND, "-", digest[:12]))
            continue
        content = sources.read(path, "")
        rows.append((path, content["command"], content["commit"], digest[:12]))
    return Table(
        "The result files behind these tables", ("file", "command", "commit", "SHA-256"), rows
    )
