"""Three generations of encoder-decoder in JAX: Seq2Seq, attention, Transformer.

translator = encdec.load("runs/dates")
translator("Donnerstag, 3. Mai 1979").text
"""

from encdec.translator import SearchOptions, Translation, Translator, load

__all__ = ["SearchOptions", "Translation", "Translator", "load"]
