"""Transcripts: what goes into a core and everything that comes out, as text that plays again.

They are the golden tests of this project (`tests/golden`) and what `detray shrink` writes. Here is
the language that both speak: names for ids, directives for stimuli, sentences for effects.
"""
