"""The commands by what they are about; each module is a typer application that `flows.cli` takes in."""
