"""When training ends for want of a better validation score."""

from typing import NamedTuple


class EarlyStopping(NamedTuple):
    """What the validations so far came to.

    Attributes:
      best: the best score so far, where higher is better; None before the first.
      waited: validations since that score was first reached.
      step: the step of the latest parameters that reached it.
    """

    best: float | None = None
    waited: int = 0
    step: int = 0

    def after(self, score: float, step: int) -> "EarlyStopping":
        """The state after one more score. Of equal scores the latest step is kept, and the wait
        goes on."""
        if self.best is None or score > self.best:
            return EarlyStopping(score, 0, step)
        return EarlyStopping(self.best, self.waited + 1, step if score == self.best else self.step)

    def is_over(self, patience: int) -> bool:
        """Whether training has waited for `patience` validations; 0 waits for ever."""
        return 0 < patience <= self.waited
