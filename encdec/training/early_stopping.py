"""Early stopping: training ends after validations without a better metric."""

from typing import NamedTuple


class EarlyStopping(NamedTuple):
    """The state of early stopping after the validations so far.

    Attributes:
      best: the best value so far, where higher is better; None before the first validation.
      waited: validations since that value was first reached.
      step: the step of the latest parameters that reached it.
    """

    best: float | None = None
    waited: int = 0
    step: int = 0

    def after(self, value: float, step: int) -> "EarlyStopping":
        """The state after one more validation.

        Of equal values the step is that of the latest, but `waited` counts on.
        """
        if self.best is None or value > self.best:
            return EarlyStopping(value, 0, step)
        return EarlyStopping(self.best, self.waited + 1, step if value == self.best else self.step)

    def is_over(self, patience: int) -> bool:
        """Whether training has waited for `patience` validations; a patience of 0 never ends it."""
        return 0 < patience <= self.waited
