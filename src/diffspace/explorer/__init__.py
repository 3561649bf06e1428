"""The explorer: a page on which the design space can be moved by hand, served by `diffspace explore`."""

from diffspace.explorer.app import create_app as create_app
from diffspace.explorer.models import Offered as Offered
