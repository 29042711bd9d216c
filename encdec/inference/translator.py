"""The translator: text in; translations with scores and alignments out."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

from encdec.config import InferenceDeviceConfig
from encdec.config.search import SearchOptions
from encdec.data.shortlist import BEST, Shortlist, read_shortlist
from encdec.files import given_path
from encdec.inference.arguments import check_search, given_integer, text_list
from encdec.inference.batch_search import BatchSearch, How, See
from encdec.inference.beam_memory import free_memory
from encdec.inference.decoding import Model
from encdec.inference.limits import target_limits
from encdec.inference.minimum_bayes_risk import by_expected_utility
from encdec.inference.scoring import log_probs_program, rows_that_fit
from encdec.inference.self_attention import self_attention_maps
from encdec.inference.sources import encode_sources, example_numbers
from encdec.inference.translation import Translation, blank_translation, read_translations
from encdec.models import registry
from encdec.models.interface import EncoderDecoder, has_factors, has_int8
from encdec.parallel import sharding
from encdec.parallel.devices import chosen_precision
from encdec.parallel.layout import SINGLE_DEVICE, Layout, layout_devices, scans_layers
from encdec.runs import run as runs
from encdec.runs.parameters import best_params, build_model
from encdec.runs.run import Run
from encdec.search.constraints import TextConstraints, TextError, constrain
from encdec.search.interface import Processor, check_processors
from encdec.search.phrase_texts import Phrase
from encdec.types import Batch, InputError, MapKind, Params, Precision, Weights


class Translator:
    """Translates with one set of parameters.

    Args:
      run: settings and vocabularies.
      params: the model's parameters, sharded over the devices.
      step: the step of the checkpoint that holds the parameters; None if they are from none.
      layout: the devices.
      precision: of matrix products.
      memory: bytes of each device that a batch may need; None for those beside the parameters.
    """

    def __init__(
        self,
        run: Run,
        params: Params,
        step: int | None = None,
        layout: Layout = SINGLE_DEVICE,
        precision: Precision = "float32",
        *,
        memory: int | None = None,
    ) -> None:
        self.run = run
        self.step = step
        self._params, self._layout = params, layout
        self._memory = memory
        self._model = build_model(
            run, layout, scan=scans_layers(layout, run.config.model), precision=precision
        )
        self._specials = run.tgt_vocabulary.specials
        self._mean, self._weights = "probabilities", np.ones(1, np.float32)
        self._shortlist: Shortlist | None = None

    @property
    def members(self) -> "tuple[Translator, ...]":
        """The translators that decode together: this one, or those of an ensemble."""
        return (self,)

    def with_languages(self, source: str | None, target: str | None) -> "Translator":
        """This translator for other languages of a multilingual model; None leaves that of a side.

        Raises:
          InputError: the model does not know a language, or has none to choose from.
        """
        other = copy.copy(self)
        other.run = runs.with_languages(self.run, source, target)
        other._specials = other.run.tgt_vocabulary.specials
        return other

    def with_shortlist(self, path: str | Path, best: int = BEST) -> "Translator":
        """This translator with a vocabulary shortlist: a translation has only tokens that a table
        proposes for the tokens of its source, which is faster on a CPU.

        Besides, it may have the special tokens, those that are written as a token of the source,
        and what a prefix or a phrase demands. Log-probabilities are normalised over these tokens.
        `log_probs` and `encdec.score`, which are of given texts, use no shortlist.

        Args:
          path: the table, see `encdec.data.shortlist`.
          best: the most tokens that each token of the source proposes.

        Raises:
          InputError: the table cannot be read, or is not of these vocabularies; or a model is of a
            family whose last layer is not known.
        """
        for member in self.members:
            if not has_factors(member._model):
                raise InputError(
                    f"{member.run.path} is a run of {member.run.config.model_name}, which cannot "
                    "have a shortlist: its module defines no decode_factors"
                )
        best = given_integer("best", best)
        other = copy.copy(self)
        other._shortlist = read_shortlist(
            given_path("path", path), self.run.src_vocabulary, self.run.tgt_vocabulary, best
        )
        return other

    def __call__(
        self,
        text: str,
        options: SearchOptions | None = None,
        *,
        processors: Sequence[Processor] = (),
    ) -> Translation:
        """Returns the best translation of one text, with its alignment; arguments as in `nbest`.

        Raises:
          InputError: text is not a str: `translate` takes several.
        """
        if not isinstance(text, str):
            raise InputError(
                f"the text is a {type(text).__name__}: give a str, or several to `translate`"
            )
        return self.nbest([text], 1, options, processors=processors, alignments=True)[0][0]

    def translate(
        self, texts: Iterable[str], options: SearchOptions | None = None, **how: Any
    ) -> list[Translation]:
        """Returns the best translation of each text; arguments as in `nbest`."""
        return [best[0] for best in self.nbest(texts, 1, options, **how)]

    def nbest(
        self,
        texts: Iterable[str],
        count: int,
        options: SearchOptions | None = None,
        *,
        prefixes: Sequence[str] | None = None,
        example_ids: Sequence[int] | None = None,
        phrases: Sequence[Sequence[Phrase]] | None = None,
        bans: Sequence[Sequence[str]] | None = None,
        processors: Sequence[Processor] = (),
        alignments: bool = False,
        max_source_length: int | None = None,
        max_batch_tokens: int = 8192,
        progress: Callable[[int], None] | None = None,
        watch: Callable[[int, str], None] | None = None,
    ) -> list[list[Translation]]:
        """Returns up to `count` translations of each text, best first; of a blank text "".

        Args:
          texts: source sentences.
          count: the number of translations, at most the beam width; in sampling, of draws. With
            `options.mbr` at most that, and texts that differ.
          options: how to search; None for `search` of the run's settings.
          prefixes: for each text, the text with which its translation begins, "" for any beginning;
            by default `options.prefix` for all texts.
          example_ids: for each text, the number whose low 32 bits decide with the seed what is
            drawn for it, whatever texts are translated with it; by default its index in `texts`.
            Give its index in the whole input where that is translated in parts.
          phrases: for each text, the phrases that its translation must contain, as words. A phrase
            is a text, or several of which one is enough. The same phrase twice counts once, and a
            phrase may be a part of another one.
          bans: for each text, the texts that its translation must not contain besides
            `options.ban`.
          processors: further search rules, see `encdec.search.interface.Processor`.
          alignments: whether translations have their attention.
          max_source_length: source tokens after this many are cut off; None cuts nothing.
          max_batch_tokens: the most source tokens in a batch, padding included, on a CPU times
            the beam width; a longer text gets a batch to itself. A batch has fewer where its search
            would not fit into what is free of a device, or its caches would need more than 2 GiB.
          progress: called after each batch with the number of its texts.
          watch: called every few tokens, maybe in another thread, with the index of a text and the
            best translation so far, finished or not, which may still change.

        Raises:
          InputError: count is not between 1 and the beam width or `options.mbr`, or an argument has
            another type; a text with its beam does not fit into memory; or a banned text, a phrase,
            a prefix or a minimum length cannot be used with this vocabulary or these texts, or they
            contradict each other; or log-probabilities are not numbers.
          TypeError: texts is a single string: call the translator itself with it.
        """
        texts = text_list(texts)
        check_search(options)
        count = given_integer("nbest", count)
        max_batch_tokens = given_integer("max_batch_tokens", max_batch_tokens)
        if max_source_length is not None:
            max_source_length = given_integer("max_source_length", max_source_length)
        check_processors(processors)
        options = options or self.run.config.search
        candidates = _candidates(count, options)
        options = replace(options, beam=candidates) if options.sample else options
        # A blank text has one translation, which is each of its draws.
        draws = count if options.sample and not options.mbr else 1
        results = [[blank_translation() for _ in range(draws)] for _ in texts]
        real = [i for i, text in enumerate(texts) if text.strip()]
        numbers = example_numbers(example_ids, len(texts))[real]
        sources = [
            encode_sources(member.run, [texts[i] for i in real], max_source_length)
            for member in self.members
        ]
        batches = self._batches()
        batches.check(sources[0], options, alignments=alignments)
        constraints = constrain(
            options,
            self.run.tgt_vocabulary,
            target_limits([member.run for member in self.members], options, sources[0].lengths()),
            TextConstraints(prefixes, phrases, bans).of(real, len(texts)),
        )
        if progress:
            progress(len(texts) - len(real))
        how = How(options, constraints, processors, alignments, max_batch_tokens)
        for rows, result in batches.search(sources, numbers, how, self._see(watch, real)):
            for row, index in enumerate(rows):
                found = read_translations(result, row, sources[0][index], candidates, self.run)
                if not found:
                    raise TextError(
                        real[index],
                        "no translation has a finite score: the model's log-probabilities, or "
                        "those of a processor, are not numbers",
                    )
                if options.mbr:
                    found = by_expected_utility(found, count, drawn=options.sample)
                results[real[index]] = found
            if progress:
                progress(len(rows))
        return results

    def _see(self, watch: Callable[[int, str], None] | None, real: Sequence[int]) -> See | None:
        """What gives `watch` the text of tokens; `real` are the indices of the searched texts."""
        if watch is None:
            return None

        def see(index: int, ids: np.ndarray) -> None:
            tokens = ids[ids != self._specials.pad].tolist()
            watch(real[index], self.run.tgt_vocabulary.decode(tokens))

        return see

    def log_probs(self, batch: Batch) -> np.ndarray:
        """Computes the log-probability of each target token of a batch, see `scoring.log_probs`.

        Args:
          batch: NumPy arrays, the same in all processes.

        Returns:
          float32 [B, T], nats; 0 where the target token is padding.

        Raises:
          InputError: it is not a batch.
        """
        if not isinstance(batch, Batch):
            raise InputError(
                f"log_probs takes an encdec.Batch of token ids, not a {type(batch).__name__}: "
                "encdec.score(translator, pairs) takes pairs of texts"
            )
        program = log_probs_program(self._layout, self._model)
        gathered = sharding.gather_batch(
            program(self._params, sharding.shard_rows(batch, self._layout)), self._layout
        )
        return np.asarray(gathered)[: len(batch.src)]

    def most_rows_to_score(self, length: int) -> int:
        """The most pairs of so many tokens on each side whose `log_probs` fit into memory at once;
        0 if not even one does."""
        memory, precision = self._free_memory(), self._model.precision
        models = (build_model(member.run, precision=precision) for member in self.members)
        return min(rows_that_fit(model, self._layout, memory, length) for model in models)

    @property
    def map_names(self) -> list[str]:
        """The names of a translation's M attention maps, such as `layer 1, head 2`."""
        return self.run.config.model.map_names

    def attention(self, translation: Translation, kind: MapKind = "encoder-decoder") -> np.ndarray:
        """Returns the attention maps of a translation.

        Args:
          translation: a translation by this translator, with its alignment.
          kind: encoder-decoder attention, or self-attention of one side, which only a Transformer
            has.

        Returns:
          float32 [M, queries, keys]: encoder-decoder [M, T, S], encoder [M, S, S], decoder
          [M, T, T]. Row t of a decoder map belongs to target token t, and its columns to the
          decoder's inputs: the start token, then the target tokens.

        Raises:
          InputError: the model has no such maps, it is no translation or has no alignment, or
            self-attention is requested on several devices.
        """
        if not isinstance(translation, Translation):
            raise InputError(
                f"the translation is a {type(translation).__name__}: give one that this translator "
                "returned, as translator(text) does"
            )
        model, kinds = self.run.config.model_name, self.run.config.model.attention_kinds
        if not kinds:
            raise InputError(f"{self.run.path} is a run of {model}, which has no attention")
        if kind not in kinds:
            raise InputError(
                f"{self.run.path} is a run of {model}, which has only {' and '.join(kinds)} maps"
            )
        if translation.attention is None:
            raise InputError(
                "the translation has no alignment: its text is blank, or none was requested"
            )
        if kind == "encoder-decoder":
            return translation.attention
        if self._layout.size > 1:
            raise InputError(
                f"{kind} maps cannot be computed in layout {self._layout}: load the run as 1x1"
            )
        start = self.run.tgt_vocabulary.specials.start
        return self_attention_maps(self._params, translation, start, kind, self._model)

    def source_length(self, text: str) -> int:
        """The number of tokens of a source text, without the end token."""
        return len(self.run.src_vocabulary.encode(text))

    def _batches(self) -> BatchSearch:
        """The search of many texts with all members."""
        return BatchSearch(
            tuple(member.run for member in self.members),
            Model(tuple(member._model for member in self.members), self._mean),
            tuple(member._params for member in self.members),
            self._weights,
            self._layout,
            self._free_memory(),
            self._shortlist,
        )

    def _free_memory(self) -> int:
        """The bytes of each device that batches may need."""
        if self._memory is not None:
            return self._memory
        members = (member._params for member in self.members)
        return free_memory(sum(sharding.bytes_per_device(one, self._layout) for one in members))


def _candidates(count: int, options: SearchOptions) -> int:
    """How many translations a search is to find so that `count` can be returned.

    Raises:
      InputError: there cannot be so many.
    """
    most, name = options.beam, "beam"
    if options.mbr:
        most, name = options.mbr, "mbr"
    elif options.sample:
        return count
    if count > most:
        raise InputError(
            f"nbest = {count} cannot be used with {name} = {most}: give 1 to {most}, or a "
            f"larger {name}"
        )
    return options.mbr or count


def load(
    path: str | Path,
    layout: Layout = SINGLE_DEVICE,
    precision: Precision = "float32",
    weights: Weights = "float32",
) -> Translator:
    """Opens a run folder with its best parameters.

    Args:
      path: the folder.
      layout: the devices to translate on.
      precision: of matrix products.
      weights: int8 rounds matrices, and what they are multiplied by, to 8 bits, which is faster on
        a CPU; log-probabilities are those of this rounded model.

    Raises:
      InputError: the folder is not a run folder, is damaged or has no best checkpoint yet, or its
        model cannot be split over these devices or have these weights.
    """
    run = runs.load(path)
    if not isinstance(layout, Layout):
        raise InputError(
            f"layout = {layout!r} is no Layout: Layout.parse({str(layout)!r}) makes one"
        )
    if precision not in get_args(Precision):
        raise InputError(
            f"precision = {precision!r} is unknown: give one of {', '.join(get_args(Precision))}"
        )
    layout.check_model(run.config.model)
    model = build_model(run)
    _check_weights(run, model, layout, weights)
    params, step = best_params(run)
    if weights == "int8":
        params = model.int8_params(params)
        return Translator(run, jax.device_put(params), step, layout, precision)
    split = sharding.shard_specs(params, registry.split_axes(model), layout)
    return Translator(run, sharding.shard(params, split, layout), step, layout, precision)


def _check_weights(run: Run, model: EncoderDecoder, layout: Layout, weights: Weights) -> None:
    """Raises InputError if the model cannot have these weights on these devices."""
    if weights not in get_args(Weights):
        raise InputError(
            f"weights = {weights!r} is unknown: give one of {', '.join(get_args(Weights))}"
        )
    if weights == "float32":
        return
    if not has_int8(model):
        raise InputError(
            f"weights = {weights!r} cannot be used with {run.path}, a run of "
            f"{run.config.model_name}: only a Transformer can have them"
        )
    if layout.size > 1 or layout_devices(layout)[0].platform != "cpu":
        raise InputError(
            f"weights = {weights!r} is for one CPU, not for layout {layout} on "
            f"{layout_devices(layout)[0].platform}: give layout 1x1 and JAX_PLATFORMS=cpu"
        )


def load_on(options: InferenceDeviceConfig, path: str | Path) -> Translator:
    """Opens a run folder as `load` does, with what a command's options say of devices."""
    layout = Layout.parse(options.layout)
    return load(path, layout, chosen_precision(options.precision), options.weights)
