"""MLflow's store: where it is, whether it answers, with bounded waiting, and its refusals as one message each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from flows.track.addresses import check_answers, shown, without_password
from flows.track.mlflow_client import database_uri, make_client, sqlite_path
from flows.track.mlflow_database import database_path, open_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE, SETTING = "MLFLOW_TRACKING_URI", "run.mlflow_uri"
DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # module: package
# Words of MLflow, or of a library below it, and the next step.
WAYS_OUT = (
    (("out-of-date database schema",), "make a copy of the database, then: mlflow db upgrade '{address}'"),
    (("Can't locate revision",), "a later MLflow changed this database: pip install --upgrade mlflow"),
    (("disk is full", "No space left"), "free some space and run the same command again"),
    (("readonly database", "unable to open", "ermission denied", "No such file"), "who may write it? ls -ld '{path}'"),
    (("is locked",), "another program holds the database: end that, then run the same command again"),
    (("mlruns",), "a database instead of a folder: {named}=sqlite:////PATH/mlflow.db"),
    (("nsupported URI", "Could not parse", "plugin"), "{named} is http://HOST:5000 or sqlite:////PATH/mlflow.db"),
)
SAID = 400  # characters of MLflow's sentence in a message


@dataclass(frozen=True)
class MlflowStore:
    """Address of a store, and the variable or setting that names it; None for the database below the data root."""

    uri: str
    name: str | None = None

    @property
    def is_own(self) -> bool:
        return self.name is None

    def open_client(self) -> "MlflowClient":
        """Return a client of a store that answers. Raises UserError within seconds where it does not."""
        self.check()
        with self.refusals():
            client = make_client(self.uri)
            client.search_experiments(max_results=1)
            return client

    def check(self) -> None:
        """Raise UserError where no server answers at the address."""
        if self.name is not None:
            check_answers(self.name, self.uri, self._other)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Turn whatever the store refuses into a UserError with its sentence and the way out."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # MLflow passes on the errors of every library below it
            raise self._refusal(error) from error

    def sentence(self, error: BaseException) -> str:
        """Return MLflow's sentence on one line, without what is secret in the address."""
        said = without_password(error, self.uri).split("\n(Background on this error")[0]
        said = " ".join(said.split()) or type(error).__name__
        return said if len(said) <= SAID else f"{said[:SAID]} ..."

    def loss(self, said: str, counts: str) -> UserError:
        """Return the summary at the end of a run that lost the store."""
        hint = f"see that {self._named} works; the next run ends this one there. All results are in the data root"
        return UserError("MLflow was lost during the run", mlflow=shown(self.uri), says=said, missing=counts, hint=hint)

    @property
    def _named(self) -> str:
        return self.name or "MLflow's database"

    @property
    def _other(self) -> str:
        if self.name is None:
            path = sqlite_path(self.uri)
            return f"put a backup in its place, or move it away: mv '{path}' '{path}.damaged'"
        away = f"unset {self.name}" if self.name == VARIABLE else f"--set {self.name}=null"
        return f"start that server; or {away}    (MLflow's database is then below the data root)"

    def _refusal(self, error: Exception) -> UserError:
        said, where = self.sentence(error), shown(self.uri)
        found = [step for words, step in WAYS_OUT if any(word in said for word in words)]
        if isinstance(error, ModuleNotFoundError):
            package = DRIVERS.get(error.name or "", error.name)
            hint = f"pip install '{package}'    (the driver of this kind of store)"
        elif found:
            hint = found[0].format(address=where, named=self._named, path=sqlite_path(self.uri) or where)
        else:
            hint = self._other
        return UserError(f"MLflow refuses the store in {self._named}", mlflow=where, says=said, hint=hint)


def named_store(settings: Settings | None = None) -> MlflowStore | None:
    """Return the profile's store, else that in MLFLOW_TRACKING_URI; None where neither is set."""
    if settings is not None and settings.run.mlflow_uri:
        return MlflowStore(settings.run.mlflow_uri, SETTING)
    given = os.environ.get(VARIABLE)
    return MlflowStore(given, VARIABLE) if given else None


def check_named(settings: Settings) -> None:
    """Raise UserError where a store is named at whose address no server answers, without importing MLflow."""
    if (named := named_store(settings)) is not None:
        named.check()


def find_store(root: Path, settings: Settings | None = None) -> MlflowStore:
    """Return the store that is named, else the database below the data root.

    Makes a fresh database, which takes ten seconds.
    """
    named, own = named_store(settings), MlflowStore(database_uri(database_path(root)))
    if named is not None and named.uri != own.uri:  # MLflow sets the variable when a model is registered
        return named
    with own.refusals():
        open_database(root)
    return own
