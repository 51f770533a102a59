"""`porf publish`: results to object storage."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.case_folder import CaseFolder
from flows.cli import console
from flows.cli.arguments import absolute
from flows.cli.gc import folders, size_text

PublishOption = Annotated[
    str | None,
    typer.Option(
        "--publish", help="Copy the results there at the end, as s3://bucket/folder.", metavar="URL"
    ),
]


def publish(
    out: Annotated[
        Path, typer.Argument(help="Output folder of a run or of a batch.", metavar="OUT")
    ],
    url: Annotated[
        str,
        typer.Argument(help="s3://bucket/folder, or what else fsspec knows.", metavar="URL"),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file back and compare its SHA-256.")
    ] = False,
) -> None:
    """Copy results to object storage; what is there already is not sent again.

    A batch's cases go to URL/<case>. Credentials are taken from the surroundings, for S3 from
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws; another server by AWS_ENDPOINT_URL.
    """
    from flows.publish import check_url  # noqa: PLC0415

    base, root = check_url(url), absolute(out)
    for folder in folders(root):
        publish_folder(
            folder, base if folder.root == root else f"{base}/{folder.root.name}", verify
        )


def publish_folder(folder: CaseFolder, url: str, verify: bool = False) -> None:
    """Publish one output folder and say so."""
    from flows.publish import publish as copy  # noqa: PLC0415

    done = copy(folder, url, verify)
    there = f", {done.kept} were there" if done.kept else ""
    console.print(
        f"[green]✓[/] published to [bold]{escape(url)}[/]: {done.sent} files sent{there}, "
        f"{size_text(done.size)} in all"
    )
