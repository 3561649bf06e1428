"""Features of published networks, and of networks of one's own."""

from diffspace.metrics.extractors.making import (
    WORDS as WORDS,
    default_extractor as default_extractor,
    make_extractor as make_extractor,
)
