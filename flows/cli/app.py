"""All commands of `porf`."""

import typer

from flows.cli import (
    batch,
    demo,
    evaluate,
    export,
    gc,
    inspect,
    publish,
    remote,
    roi,
    run,
    service,
    stage,
    train,
    ui,
    watch,
)

app = typer.Typer(
    name="porf",
    help="Photos in; accurate cameras and an accurate, measured surface mesh out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("run")(run.run)
app.command("batch")(batch.batch)
app.command("train")(train.train)
app.command("mesh")(train.mesh)
app.command("status")(inspect.status)
app.command("explain")(inspect.explain)
app.command("options")(inspect.options)
app.command("stage")(stage.stage)
app.command("gc")(gc.gc)
app.command("publish")(publish.publish)
app.command("demo")(demo.demo)
app.command("export-cameras")(export.export_cameras)
app.command("roi")(roi.roi)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(evaluate.compare)
app.command("ui")(ui.ui)
app.command("server")(service.server)
app.command("worker")(service.worker)
app.command("deploy")(service.deploy)
app.command("submit")(remote.submit)
app.command("runs")(remote.runs)
app.command("cancel")(remote.cancel)
app.command("retry")(remote.retry)
app.command("logs")(remote.logs)
app.command("watch")(watch.watch)
