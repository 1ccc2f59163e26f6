"""The one kind of error a user can cause."""


class ConfigError(ValueError):
    """Something a user asked for cannot be done; the message says what, where, and how to mend it."""
