"""Greedy search, beam search and sampling over a `DecodeStep`; they know no model."""

from encdec.search.beam import beam_search
from encdec.search.options import SearchOptions
from encdec.search.stepwise import greedy, sample
from encdec.search.types import Found

__all__ = ["Found", "SearchOptions", "beam_search", "greedy", "sample"]
