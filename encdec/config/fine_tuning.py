"""What a run begins from, and which of its parameters are trained."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from encdec.config.checks import check_finite, check_types, require
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.config import RunConfig


@dataclass(frozen=True)
class FineTuningConfig:
    """Fine-tuning: the run to begin from, and the parameters that are trained."""

    init_from: str | None = None
    """Run folder to begin from: its vocabularies, text preprocessing and best parameters, with a
    fresh optimizer and schedule. The settings of the model must be the same except for dropout."""
    freeze: tuple[str, ...] = ()
    """Parameters that are not trained: patterns of their dotted names, such as 'encoder*'
    'src_embedding*'."""
    lora_rank: int = 0
    """If above 0, only low-rank additions to matrices are trained (LoRA, Hu 2021),
    W + (alpha / rank) A B with A of this many columns."""
    lora_alpha: float | None = None
    """Scale of the additions before division by the rank; by default the rank."""
    lora_targets: tuple[str, ...] = ()
    """Matrices with additions: patterns of their dotted names, such as '*attention.w[qv]'; by
    default all matrices except embeddings and the output projection."""

    def __post_init__(self) -> None:
        check_types(self)
        check_finite(self)
        require(self.lora_rank >= 0, self, "lora_rank", "at least 1, or 0 for no additions")
        if self.lora_alpha is not None:
            require(self.lora_alpha > 0, self, "lora_alpha", "above 0")
        for name in ("lora_alpha", "lora_targets"):
            if getattr(self, name) and not self.lora_rank:
                raise InputError(f"{name} needs lora_rank: give one, such as 8")
        if self.lora_rank and self.freeze:
            raise InputError(
                "freeze and lora_rank given: low-rank additions freeze all other parameters "
                "already; leave freeze out, and choose the matrices with lora_targets"
            )

    @property
    def lora_scale(self) -> float:
        """alpha / r."""
        alpha = self.lora_rank if self.lora_alpha is None else self.lora_alpha
        return alpha / self.lora_rank


TEXT_SETTINGS = (
    *("lowercase", "normalization", "tokenizer", "vocabulary", "target_vocabulary"),
    *("sentencepiece_model", "vocabulary_size", "vocabulary_sentences", "joint_vocabulary"),
)
"""Fields of `DataConfig` that a vocabulary depends on."""


def check_model_matches(has: "RunConfig", asks: "RunConfig", origin: str) -> None:
    """Refuses settings that the parameters or vocabularies of another run do not fit.

    Args:
      has: settings of the run to begin from.
      asks: settings of the new run.
      origin: the folder of the run to begin from.

    Raises:
      InputError: names the setting, both values and what would do.
    """
    if has.model_name != asks.model_name:
        raise InputError(_mismatch("model", has.model_name, asks.model_name, origin))
    names = [spec.name for spec in fields(has.model) if "dropout" not in spec.name]
    for owner, settings in (("model", names), ("data", TEXT_SETTINGS)):
        for name in settings:
            old, new = (getattr(getattr(config, owner), name) for config in (has, asks))
            if old != new:
                raise InputError(_mismatch(name, old, new, origin))


def _mismatch(name: str, old: object, new: object, origin: str) -> str:
    return (
        f"{name} = {new!r} cannot be used: the run to begin from, {origin}, has {name} = {old!r}; "
        f"leave {name} out, or train a new run without init_from"
    )
