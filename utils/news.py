"""The log messages of the package."""

import logging


def show_news() -> None:
    """Prints the messages of the package's own loggers on the standard error stream, those of level INFO included.

    Programs call this function. A library does not, since its users choose which messages they want to see.
    """
    logger = logging.getLogger(__name__.partition(".")[0])
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [logging.StreamHandler()]
