"""Loss, optimiser, schedule, validation."""

from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import check_ranges, check_types, require
from encdec.types import InputError

BleuTokenizer = Literal[
    "13a",
    "intl",
    "char",
    "zh",
    "ja-mecab",
    "ko-mecab",
    "none",
    "spm",
    "flores101",
    "flores200",
    "spBLEU-1K",
]
"""sacreBLEU's tokenizers; the last four download a SentencePiece model when first used."""


@dataclass(frozen=True)
class TrainingConfig:
    """Loss, optimiser, schedule, validation."""

    max_steps: int = 20_000
    """Updates of the parameters. `encdec train` and `encdec.preset` lower the defaults of `warmup`
    and `num_buckets` for a short run."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or Adam with decoupled weight decay."""
    learning_rate: float = 7e-4
    """Highest rate: where the warm-up ends."""
    schedule: Literal["inverse-sqrt", "cosine", "constant"] = "inverse-sqrt"
    """After the warm-up: 1/sqrt(step) (Vaswani 2017), half a cosine to 0 after the last step, or
    constant."""
    warmup: int = 4000
    """Steps of linear warm-up from 0."""
    weight_decay: float = 0.0
    """Decay a step of AdamW, times the learning rate."""
    weight_decay_mask: Literal["matrices", "not-embeddings", "all"] = "matrices"
    """What decays: all matrices, matrices but embeddings, or every parameter."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.98
    """Adam's decay of the mean squared gradient."""
    epsilon: float = 1e-9
    """Adam's guard against division by 0."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient; 0 for no limit."""
    label_smoothing: float = 0.1
    """Probability spread evenly over the vocabulary (Szegedy 2016)."""
    gradient_accumulation: int = 1
    """Equal parts that a batch is split into to save memory; the result is the same."""
    scheduled_sampling: float = 0.0
    """Share of the target inputs that the model draws itself (Bengio 2015): rises evenly from 0 to
    this at max_steps. For the recurrent decoders."""
    average_last: int = 1
    """Checkpoints, the latest ones, whose mean is validated and translated with."""
    ema_decay: float = 0.0
    """Where above 0: an exponential moving average of the parameters with this decay a step is
    validated and translated with."""
    evaluate_every: int = 1000
    """Steps between two validations; each leaves a checkpoint."""
    log_every: int = 50
    """Steps between two rows of metrics."""
    best_metric: str = "bleu"
    """Validation metric that selects the best checkpoint: loss, or any metric that `evaluate`
    computes."""
    patience: int = 0
    """Training stops after this many validations in a row without a better one; 0 for never."""
    bleu_tokenizer: BleuTokenizer | None = None
    """How BLEU splits text into words. Left out, the target language decides: zh for Chinese,
    ja-mecab or char for Japanese, ko-mecab or char for Korean, 13a for any other. Choose none where
    the references are tokenized already."""
    evaluate_sentences: int = 1000
    """Validation sentences that are decoded each time."""

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(
            self,
            positive="max_steps gradient_accumulation evaluate_every log_every evaluate_sentences "
            "average_last",
            fractions="label_smoothing beta1 beta2 ema_decay",
        )
        for name in ("learning_rate", "epsilon"):
            require(getattr(self, name) > 0, self, name, "above 0")
        for name in ("warmup", "weight_decay", "clip_norm", "patience"):
            require(getattr(self, name) >= 0, self, name, "at least 0")
        require(0 <= self.scheduled_sampling <= 1, self, "scheduled_sampling", "from 0 to 1")
        if self.ema_decay and self.average_last > 1:
            raise InputError("ema_decay and average_last are two ways to average: give one")
        if self.weight_decay and self.optimizer != "adamw":
            raise InputError("weight_decay needs optimizer = 'adamw'")

    @property
    def depends_on_max_steps(self) -> bool:
        """Whether steps before the last would be others with another max_steps."""
        return self.schedule == "cosine" or self.scheduled_sampling > 0
