"""What a data set holds, and which settings of the EDM column follow from it."""

from diffspace.inspection.proposals import Proposal as Proposal
from diffspace.inspection.proposals import Proposals as Proposals
from diffspace.inspection.proposals import propose as propose
from diffspace.inspection.summary import Inspection as Inspection
from diffspace.inspection.summary import inspect as inspect
