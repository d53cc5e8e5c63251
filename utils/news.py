"""What the package has to say while it works."""

import logging


def show_news() -> None:
    """Print what the package's own loggers say on the standard error stream, news (`logger.info`) included.

    A program calls this, never a library: others decide for themselves what they want to read.
    """
    logger = logging.getLogger(__name__.partition(".")[0])
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [logging.StreamHandler()]
