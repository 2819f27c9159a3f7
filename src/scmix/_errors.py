"""The errors scmix raises: each message says what was found, what was expected, what to do next."""


class InputError(ValueError):
    """The data or an argument cannot be used as given."""


class MissingKeyError(InputError, KeyError):
    """A layer or column that was named does not exist."""

    def __str__(self) -> str:  # KeyError would print the message quoted
        return ValueError.__str__(self)


class GeneIdError(InputError):
    """The gene names do not fit the vocabulary: wrong species, wrong kind of id, or duplicates."""


class ModelFileError(ValueError):
    """A checkpoint is damaged, unsafe or not a checkpoint."""


class IncompatibleModelError(ModelFileError):
    """A checkpoint is intact but made for something else (vocabulary, task, newer format)."""


class ResourceError(RuntimeError):
    """The machine ran out of memory or disk."""
