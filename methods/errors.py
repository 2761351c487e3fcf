"""The one exception for what a user got wrong: the command line prints it and exits with 2, without a traceback."""


class UserError(Exception):
    """A mistake in what the user handed over. The message names the file, the key, the value and what would be right."""


class StageError(UserError):
    """A stage that can't be brought to its end: its loss is not finite, or memory ran out. The message says what to change."""
