"""What can go wrong, as sentences that tell a person what to do."""


class OperationFailed(Exception):
    """A step cannot be done; the message is complete and ready to be read."""


class AnotherCommandRuns(OperationFailed):
    """Another command is changing this home right now, so this one did nothing."""
