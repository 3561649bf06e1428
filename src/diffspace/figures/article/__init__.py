"""Every figure of the article and those of the paper that it points to, by name: `diffspace figures`."""

from diffspace.figures.article.coefficients import ENTRIES as _COEFFICIENTS
from diffspace.figures.article.entry import (
    Animation as Animation,
    Entry as Entry,
    Picture as Picture,
    Subject as Subject,
    write_picture as write_picture,
)
from diffspace.figures.article.flows import ENTRIES as _FLOWS
from diffspace.figures.article.models import ENTRIES as _MODELS
from diffspace.figures.article.noise import ENTRIES as _NOISE
from diffspace.figures.article.page import render_page as render_page
from diffspace.figures.article.pretrained import ENTRIES as _PRETRAINED
from diffspace.figures.article.steps import ENTRIES as _STEPS

ENTRIES: tuple[Entry, ...] = (*_FLOWS, *_STEPS, *_NOISE, *_COEFFICIENTS, *_MODELS, *_PRETRAINED)
"""The figures in the order of the article."""
