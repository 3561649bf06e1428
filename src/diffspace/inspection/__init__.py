"""What data propose for a model, and what can be learnt from them."""

from diffspace.inspection.measure import Inspection as Inspection
from diffspace.inspection.measure import inspect as inspect
from diffspace.inspection.proposals import Proposal as Proposal
from diffspace.inspection.proposals import Proposals as Proposals
from diffspace.inspection.proposals import propose as propose
