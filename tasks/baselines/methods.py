"""The methods in the order of the paper's table."""

from data_catalog.store.stage import Stage
from tasks.baselines import ip2p_live3d, live3d_styleclip, ours, pti_styleclip, spi_nada
from tasks.baselines.measuring import Method

_ROWS = (pti_styleclip, live3d_styleclip, spi_nada, ip2p_live3d, ours)
METHODS: tuple[Method, ...] = tuple(module.METHOD for module in _ROWS)
STAGES: dict[str, Stage] = {module.METHOD.name: module.STAGE for module in _ROWS}
OURS = ours.METHOD.title
