"""Charts: as SVG that follows the page's text colour, and as PNG files."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

BLUE, ORANGE, GREY = "#3b7dbd", "#d9822b", "#8a8f98"

_STAND_IN = "#010203"
"""Drawn in this colour, then made `currentColor`, so that text follows light and dark pages."""

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,  # file names may hold dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same page for the same data
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.18,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}
_COLOURED: tuple[Any, ...] = (
    "text.color",
    "axes.labelcolor",
    "axes.edgecolor",
    "xtick.color",
    "ytick.color",
)

HISTORY_TITLES = {
    "loss": "Total loss",
    "color": "Colour loss",
    "eikonal": "Eikonal loss",
    "epipolar": "Epipolar loss",
    "psnr_db": "PSNR of training pixels (dB)",
    "heldout_epipolar_px": "Epipolar error of held-out matches (px)",
    "rotation_change_deg": "Mean rotation from the given cameras (°)",
}


@dataclass(frozen=True)
class Chart:
    """One chart in both forms.

    Attributes:
        name: for the file.
        title: one line.
        svg: markup with `currentColor`.
        png: bytes.
    """

    name: str
    title: str
    svg: str
    png: bytes


def draw(
    name: str,
    title: str,
    paint: Callable[[Axes], None],
    size_in: tuple[float, float] = (4.4, 2.6),
) -> Chart:
    """A chart drawn by `paint` on fresh axes; the page sets the SVG's title itself."""
    svg = _render("", paint, size_in, _STAND_IN, "svg").decode()
    svg = svg[svg.index("<svg") :].replace(_STAND_IN, "currentColor")
    return Chart(name, title, svg, _render(title, paint, size_in, "#22262b", "png"))


def _render(
    title: str, paint: Callable[[Axes], None], size_in: tuple[float, float], ink: str, kind: str
) -> bytes:
    with mpl.rc_context({**_STYLE, **dict.fromkeys(_COLOURED, ink), "grid.color": ink}):
        figure = Figure(figsize=size_in, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        paint(axes)
        axes.set_title(title)
        buffer = io.BytesIO()
        if kind == "svg":
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        else:
            figure.savefig(buffer, format="png", dpi=160, facecolor="white")
        return buffer.getvalue()


def training_charts(history: dict[str, NDArray]) -> list[Chart]:
    """One chart for each figure of the training history that says anything."""
    steps = history.get("step")
    if steps is None or len(steps) < 2:
        return []
    charts = []
    for column, values in history.items():
        finite = np.isfinite(values)
        if column == "step" or finite.sum() < 2 or np.ptp(values[finite]) == 0:
            continue
        charts.append(_history_chart(column, steps[finite], values[finite]))
    return charts


def _history_chart(column: str, steps: NDArray, values: NDArray) -> Chart:
    spans_decades = values.min() > 0 and 30 < values.max() / values.min() < 1e6

    def paint(axes: Axes) -> None:
        axes.plot(steps, values, color=BLUE)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if spans_decades:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    title = HISTORY_TITLES.get(column, column.replace("_", " "))
    return draw(f"training_{column}", title, paint)


def bars_per_view(
    name: str, title: str, values: NDArray, colour: str = BLUE, y_label: str = ""
) -> Chart:
    """One bar a view, over the view's index, with the mean as a line."""
    mean = float(np.mean(values))

    def paint(axes: Axes) -> None:
        axes.bar(np.arange(len(values)), values, color=colour, width=0.8)
        axes.axhline(mean, color=GREY, linewidth=1, linestyle="--")
        axes.text(1, 1.02, f"mean {mean:.3g}", ha="right", transform=axes.transAxes, fontsize=8.5)
        axes.set_xlabel("view")
        axes.set_ylabel(y_label)
        axes.margins(x=0.01)
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))

    return draw(name, title, paint)


def paired_bars(name: str, title: str, views: NDArray, before: NDArray, after: NDArray) -> Chart:
    """Two bars a view: before refinement, and after it."""

    def paint(axes: Axes) -> None:
        for values, shift, colour, when in (
            (before, -0.2, ORANGE, "before"),
            (after, 0.2, BLUE, "after"),
        ):
            label = f"{when}, mean {np.mean(values):.3g}"
            axes.bar(views + shift, values, color=colour, width=0.4, label=label)
        axes.set_xlabel("view")
        axes.margins(x=0.01)
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 0.97),
            ncols=2,
            fontsize=8.5,
            handlelength=1.0,
            columnspacing=1.0,
            borderpad=0,
        )

    return draw(name, title, paint)


def before_after(name: str, title: str, labels: Sequence[str], values: Sequence[float]) -> Chart:
    """A bar for each stage of refinement, with its value."""

    def paint(axes: Axes) -> None:
        colours = [GREY] + [BLUE] * (len(values) - 1)
        bars = axes.barh(range(len(values)), values, color=colours, height=0.6)
        axes.bar_label(bars, [f" {value:.3f}" for value in values], padding=2, fontsize=9)
        axes.set_yticks(range(len(values)), labels)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")

    return draw(name, title, paint, (4.4, 1.0 + 0.42 * len(values)))


def error_scale(threshold_percent: float, thresholds: float) -> Chart:
    """The colours of the mesh's errors, from nothing to so many thresholds of the evaluation.

    Args:
        threshold_percent: in percent of the object's radius.
    """
    end_percent = threshold_percent * thresholds
    ticks = np.append(np.arange(0, end_percent, threshold_percent), end_percent)

    def paint(axes: Axes) -> None:
        axes.imshow(
            np.linspace(0, 1, 256)[None],
            aspect="auto",
            cmap="plasma",
            extent=(0, end_percent, 0, 1),
        )
        axes.set_yticks([])
        axes.set_xticks(ticks, [*(f"{tick:g}" for tick in ticks[:-1]), f"≥ {end_percent:g}"])
        axes.grid(visible=False)
        axes.set_xlabel("distance from the true surface, % of the object's radius")

    return draw("mesh_error_scale", "", paint, (5.0, 0.75))


def seen_from_above(centres: NDArray, up: NDArray) -> NDArray:
    """Places (N, 2) of cameras at centres (N, 3) as seen from the direction `up` (3,)."""
    up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    right = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    right /= np.linalg.norm(right)
    flat: NDArray = np.stack([centres @ right, centres @ np.cross(up, right)], axis=1)
    return flat - flat.mean(axis=0)


def match_graph(places: NDArray, counts: NDArray) -> Chart:
    """Cameras from above at `places` (N, 2), joined where they have matches; thicker = more."""
    first, second = np.nonzero(np.triu(counts, 1))
    strength = np.log1p(counts[first, second])
    order = np.argsort(strength)
    strongest = float(strength.max()) if len(strength) else 1.0

    def paint(axes: Axes) -> None:
        for i in order:
            share = strength[i] / strongest
            ends = places[[first[i], second[i]]]
            axes.plot(
                *ends.T, color=BLUE, linewidth=0.3 + 1.6 * share**3, alpha=0.08 + 0.5 * share**3
            )
        axes.scatter(places[:, 0], places[:, 1], s=14, color=ORANGE, zorder=3)
        if len(places) <= 60:
            for view, (x, y) in enumerate(places):
                axes.annotate(str(view), (x, y), (3, 3), textcoords="offset points", fontsize=6.5)
        axes.set_aspect("equal", "datalim")
        axes.set_axis_off()

    return draw("match_graph", "Cameras from above, joined by matches", paint, (4.4, 3.6))


def match_matrix(counts: NDArray) -> Chart:
    """Number of matches between every two views, as shades."""

    few, many = int(counts[counts > 0].min()), int(counts.max())
    shown = np.log10(np.where(counts > 0, counts, 1))
    shown[counts == 0] = np.nan

    def paint(axes: Axes) -> None:
        image = axes.imshow(shown, cmap="viridis", interpolation="nearest")
        axes.set_xlabel("view")
        axes.set_ylabel("view")
        axes.grid(visible=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.85)
        round_ones = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000)
        ticks = sorted({few, many, *(t for t in round_ones if 1.3 * few < t < many / 1.3)})
        bar.set_ticks([float(np.log10(t)) for t in ticks], labels=[str(t) for t in ticks])

    return draw("matches", "Matches between views", paint, (4.4, 3.6))
