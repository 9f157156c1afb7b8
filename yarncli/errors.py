"""The exceptions a user can meet and the exit code of each; imports nothing.

A message says what is wrong, where, and what to do next, and fits one paragraph.
"""


class YarncliError(Exception):
    """Base of every foreseen failure; `exit_code` is what the process ends with."""

    exit_code = 3
    severity = "error"
    """How the message is told: "error", or "note" where nothing is wrong."""


class CheckFailed(YarncliError):
    """The command ran correctly and the answer is no."""

    exit_code = 1


class UsageError(YarncliError):
    """The options contradict each other, or name something that cannot be used."""

    exit_code = 2


class CheckpointError(YarncliError):
    """The source cannot be processed: damaged, contradictory, or not possible for this model."""


class ConfigError(CheckpointError):
    """`config.json` is not readable, contradicts itself, or holds a value out of range."""


class NotComputedError(ConfigError):
    """A value out of the range that yarncli computes with; engines may take it nevertheless."""


class WeightsError(CheckpointError):
    """A weight file or the weight index is damaged, missing, or a Git-LFS pointer."""


class UnsupportedArchitectureError(CheckpointError):
    """The architecture cannot take what was asked, or is unknown."""


class UnknownArchitectureError(UnsupportedArchitectureError):
    """The model runs code of its own that nobody examined."""


class MissingExtraError(YarncliError):
    """An optional dependency is not installed."""

    exit_code = 4


class HubError(YarncliError):
    """The Hugging Face Hub, the network, or a server said no."""

    exit_code = 5


class NotOnHubError(HubError):
    """The Hub has no model of that name, does not show it to this user, or it is no name."""


class OutputError(YarncliError):
    """The result cannot be written: disk full, permission, read-only file system."""

    exit_code = 6
