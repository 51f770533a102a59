"""Stage `report`: one HTML page about the run."""

from pipeline.report.build import build_report
from pipeline.report.data import gather, run_title
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Write `report.html` and `pictures/*.png`."""
    data = gather(ctx.inputs, ctx.manifests, run_title(ctx.manifests))
    path = build_report(data, ctx.out, ctx.progress)
    pictures = len(list((ctx.out / "pictures").glob("*.png")))
    return Verdict(figures={"size_mb": round(path.stat().st_size / 1e6, 2), "pictures": pictures})
