"""Pieces of work as Prefect's task runs."""

import pytest

from data_catalog.config.errors import UserError
from flows.track.prefect_pages import Tally, show_work


def test_an_error_that_ends_the_run_comes_through_a_task_run(prefect_api: None) -> None:
    from prefect import flow

    def find_no_worker() -> Tally:
        raise UserError("no worker")

    def fail_partly() -> Tally:
        return Tally(failed=1)

    @flow
    def run() -> None:
        show_work("edit", "edit bald", fail_partly)
        show_work("edit", "edit neon", find_no_worker)

    with pytest.raises(UserError, match="no worker"):
        run()
