"""Early stopping: training ends after validations without a better metric."""

from typing import NamedTuple


class EarlyStopping(NamedTuple):
    """The state of early stopping after the validations so far.

    Of equal values of the metric, such as a BLEU of 0 in the first validations, the one with the
    lower validation loss is the better one.

    Attributes:
      best: the best value so far, where higher is better; None before the first validation.
      waited: validations since the best one.
      step: the step of the best parameters; of equally good ones the latest.
      loss: the validation loss of the best value, nats per token.
      validations: how many there were.
    """

    best: float | None = None
    waited: int = 0
    step: int = 0
    loss: float = 0.0
    validations: int = 0

    def after(self, value: float, loss: float, step: int) -> "EarlyStopping":
        """The state after one more validation."""
        best = None if self.best is None else (self.best, -self.loss)
        if best is None or (value, -loss) > best:
            return EarlyStopping(value, 0, step, loss, self.validations + 1)
        is_equal = (value, -loss) == best
        return self._replace(
            waited=self.waited + 1,
            step=step if is_equal else self.step,
            validations=self.validations + 1,
        )

    def without(self, step: int) -> "EarlyStopping":
        """The state where nothing is validated: the latest parameters are the best ones."""
        return self._replace(best=None, waited=0, step=step)

    def is_over(self, patience: int) -> bool:
        """Whether training has waited for `patience` validations; a patience of 0 never ends it."""
        return 0 < patience <= self.waited
