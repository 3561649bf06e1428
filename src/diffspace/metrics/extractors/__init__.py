"""Features of published networks, and of networks of one's own."""

from diffspace.metrics.extractors.making import (
    OF_DATA as OF_DATA,
    WORDS as WORDS,
    default_extractor as default_extractor,
    default_word as default_word,
    make_extractor as make_extractor,
)
