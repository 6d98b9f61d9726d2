"""The options that many commands share."""

from typing import Annotated

import typer

Profile = Annotated[str, typer.Option("--profile", help="A file of configs/profiles.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one setting; may be repeated."),
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME", help="A file of configs/clusters, or tcp://HOST:PORT.")
]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE[/STYLE[/BLOCK]]", help="Make these again; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
