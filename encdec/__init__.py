"""Three generations of encoder-decoder in JAX: Seq2Seq, attention, Transformer.

translator = encdec.load("runs/dates")
translator("Donnerstag, 3. Mai 1979").text
"""

from encdec.search import SearchOptions
from encdec.translator import Translation, Translator, load

__all__ = ["SearchOptions", "Translation", "Translator", "load"]
