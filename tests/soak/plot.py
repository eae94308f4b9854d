"""The plot of a soak, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from .sample import Sample
from .verdict import Verdict

matplotlib.use("Agg")  # a file, no window

BUSY, QUIET, FIT = "#b8b8b8", "#08519c", "#d62728"


def draw(path: Path, samples: Sequence[Sample], verdict: Verdict) -> None:
    """Resident memory, descriptors and tasks, over the associations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    panels: tuple[Any, ...] = tuple(figure.subplots(3, sharex=True))
    _panel(panels[0], "Resident memory, MB", samples, [sample.rss / 2**20 for sample in samples])
    ends = [verdict.points[0].associations, verdict.points[-1].associations]
    line = [verdict.memory.first / 2**20, verdict.memory.last / 2**20]
    panels[0].plot(ends, line, color=FIT, label="fitted to the quiet points after the warm-up")
    _panel(panels[1], "Descriptors", samples, [sample.descriptors for sample in samples])
    _panel(panels[2], "Tasks", samples, [sample.tasks for sample in samples])
    panels[-1].set_xlabel("associations")
    panels[-1].set_xlim(left=0)
    panels[0].legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axes: Any, title: str, samples: Sequence[Sample], values: Sequence[float]) -> None:
    at = [sample.associations for sample in samples]
    quiet = [(x, value) for sample, x, value in zip(samples, at, values, strict=True) if sample.is_quiet]
    axes.plot(at, values, color=BUSY, linewidth=0.7, label="while it goes on")
    axes.plot(*zip(*quiet, strict=True), ".", color=QUIET, markersize=4, label="at a quiet point")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
