"""What a user can mend: shown as one message, without a traceback. Anything else is a bug and keeps its own."""

from data_catalog.errors import UserError
from models.zoo import WeightsError

MISTAKES = (UserError, WeightsError)
