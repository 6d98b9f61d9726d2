"""The command line with instant stages: `python -m benchmarks.instant` takes all that `stillroom` takes."""

import tasks.stages
from benchmarks.instant_stages import STAGES
from flows.cli import main

if __name__ == "__main__":
    tasks.stages.STAGES = STAGES
    main()
