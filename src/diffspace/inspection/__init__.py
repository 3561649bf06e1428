"""What a data set holds, and which settings of the EDM column follow from it."""

from diffspace.inspection.proposals import Proposal as Proposal, Proposals as Proposals, propose as propose
from diffspace.inspection.summary import Inspection as Inspection, inspect as inspect
