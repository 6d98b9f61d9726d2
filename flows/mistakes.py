"""Exceptions for a user's mistakes, shown as one message without a traceback. Any other exception is a bug."""

from data_catalog.config.errors import UserError
from models.zoo.zoo import WeightsError

MISTAKES = (UserError, WeightsError)
