"""The plots that are made of runs, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import matplotlib

from .contests import BARE_SOCKETS, BARE_TASKS, BARE_TRIO, LANES, LIMITS, SEND, SENDER, WINDOW, Contest
from .goals import Spread, ratio
from .report import counted, number
from .run import Run

matplotlib.use("Agg")  # a file, no window

KINDS = {"ct": "CT images of 0.53 MB", "tiny": "tiny images of 14 to 39 KB", "big": "one object of 1 GiB"}
FORMS = (SEND, SENDER, WINDOW, LANES, BARE_TASKS, BARE_TRIO, BARE_SOCKETS)
SHADES = {"16k": "#9ecae1", "128k": "#4292c6", "0": "#08519c"}  # by the limit of PDUs
OURS, OTHERS = "#4292c6", "#b8b8b8"
PROCESSES = {
    "process-ct": "CT, to a sink that throws away",
    "process-tiny": "tiny, to a sink that throws away",
    "process-ct-storescp-nagle": "CT, to storescp as installed",
    "process-tiny-storescp-nagle": "tiny, to storescp as installed",
    "process-ct-tls": "CT, over TLS 1.3",
    "receive-ct": "CT, received and filed",
}


@attrs.frozen
class Bar:
    """From 0 to the median, with a line from the least to the most of the runs."""

    at: float
    spread: Spread
    colour: str
    label: str = ""  # in the legend

    def draw(self, axes: Any, height: float) -> None:
        spread = self.spread
        axes.barh(self.at, spread.median, height, color=self.colour, label=self.label)
        axes.plot((spread.least, spread.most), (self.at, self.at), color="black", linewidth=0.8)
        axes.annotate(
            number(spread.median), (spread.most, self.at), (4, 0), textcoords="offset points", va="center", fontsize=8
        )


def draw(folder: Path, contests: Sequence[Contest], runs: Sequence[Run]) -> None:
    """in-process.png and processes.png, of what there are runs of."""
    from matplotlib.figure import Figure

    panels = [Panel.of(kind, contests, runs) for kind in KINDS]
    figure = Figure(figsize=(9, 11), layout="constrained")
    figure.suptitle("Sent from within a process, beside plain C", x=0.01, ha="left")
    _in_process(figure, [panel for panel in panels if panel.bars])
    _save(figure, folder / "in-process.png")

    by_name = {contest.name: contest for contest in contests if counted(runs, contest)}
    figure = Figure(figsize=(9, 8), layout="constrained")
    figure.suptitle("Whole processes, with their start", x=0.01, ha="left")
    _processes(figure, [by_name[name] for name in PROCESSES if name in by_name], runs)
    _save(figure, folder / "processes.png")


def _save(figure: Any, path: Path) -> None:
    if figure.axes:
        figure.savefig(path, dpi=110, metadata={"Software": None})


@attrs.frozen
class Panel:
    """How fast each of `forms` of sending one kind of objects is, as a part of C's speed, for each limit of PDUs."""

    kind: str
    forms: Sequence[str]
    bars: Sequence[Bar]

    @classmethod
    def of(cls, kind: str, contests: Sequence[Contest], runs: Sequence[Run]) -> Panel:
        by_limit = {
            limit: [
                run for each in contests if each.name == f"in-process-{kind}-{limit}" for run in counted(runs, each)
            ]
            for limit in LIMITS
        }
        names = {limit: {run.contestant for run in mine} for limit, mine in by_limit.items()}
        forms = [form for form in FORMS if any(each >= {form, "C"} for each in names.values())]
        bars = [
            Bar(forms.index(form) + 0.27 * (shift - 1), ratio(mine, form, "C"), SHADES[limit], limit)
            for shift, (limit, mine) in enumerate(by_limit.items())
            for form in forms
            if names[limit] >= {form, "C"}
        ]
        return cls(kind, forms, bars)


def _in_process(figure: Any, panels: Sequence[Panel]) -> None:
    if not panels:
        return
    rows = [len(panel.forms) for panel in panels]
    all_axes = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=rows)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        for bar in panel.bars:
            bar.draw(axes, 0.26)
        axes.axvline(1, color="black", linewidth=0.8, linestyle="--")
        axes.set_title(KINDS[panel.kind], loc="left", fontsize=10)
        _label(axes, panel.forms, len(panel.forms))
    furthest = max(bar.spread.most for panel in panels for bar in panel.bars)
    all_axes[-1].set_xlim(0, 1.08 * max(1, furthest))
    all_axes[-1].set_xlabel("as fast as plain C, one object at a time (times; the dashed line is C)")
    first_of_each = {text: handle for handle, text in zip(*all_axes[0].get_legend_handles_labels(), strict=True)}
    titles = [f"{LIMITS[limit][1]} PDUs" for limit in first_of_each]
    figure.legend(first_of_each.values(), titles, loc="outside upper right", ncols=3, frameon=False)


def _processes(figure: Any, contests: Sequence[Contest], runs: Sequence[Run]) -> None:
    if not contests:
        return
    pairs = [contests[at : at + 2] for at in range(0, len(contests), 2)]
    rows = [max(len(contest.contestants) for contest in pair) for pair in pairs]
    all_axes = [*figure.subplots(len(pairs), 2, squeeze=False, height_ratios=rows).flat]
    for axes in all_axes[len(contests) :]:
        axes.remove()
    for at_all, (axes, contest) in enumerate(zip(all_axes, contests, strict=False)):
        mine = counted(runs, contest)
        present = {run.contestant for run in mine}
        names = [each.name for each in contest.contestants if each.name in present]
        for at, name in enumerate(names):
            rates = Spread.of([run.rate for run in mine if run.contestant == name])
            Bar(at, rates, OURS if name.startswith("trio-dicom") else OTHERS).draw(axes, 0.7)
        axes.set_title(PROCESSES[contest.name], loc="left", fontsize=10)
        axes.set_xlabel("objects a second", fontsize=9)
        _label(axes, names, rows[at_all // 2])


def _label(axes: Any, names: Sequence[str], rows: int) -> None:
    """The names, downwards, where there is room for `rows` of them."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
