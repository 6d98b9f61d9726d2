"""What a user can mend: shown as one message, without a traceback. Anything else is a bug and keeps its own."""

from data_catalog.config.errors import UserError
from models.zoo.zoo import WeightsError

MISTAKES = (UserError, WeightsError)
