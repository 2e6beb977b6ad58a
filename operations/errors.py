"""The one error of this package: a sentence that tells a person what to do."""


class OperationFailed(Exception):
    """A step cannot be done; the message is complete and ready to be read."""
