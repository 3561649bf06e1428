"""Which solver for how many evaluations, and solvers that are found: references, comparison, searches."""

from diffspace.solverlab.compare import BUDGETS as BUDGETS
from diffspace.solverlab.compare import STEP_FAMILIES as STEP_FAMILIES
from diffspace.solverlab.compare import Measurement as Measurement
from diffspace.solverlab.compare import Plan as Plan
from diffspace.solverlab.compare import PlannedRun as PlannedRun
from diffspace.solverlab.compare import Recommendation as Recommendation
from diffspace.solverlab.compare import SolverComparison as SolverComparison
from diffspace.solverlab.compare import compare_solvers as compare_solvers
from diffspace.solverlab.compare import default_samplers as default_samplers
from diffspace.solverlab.compare import moments as moments
from diffspace.solverlab.compare import pareto as pareto
from diffspace.solverlab.compare import plan_runs as plan_runs
from diffspace.solverlab.compare import recommend as recommend
from diffspace.solverlab.end_points import REFERENCE_SAMPLER as REFERENCE_SAMPLER
from diffspace.solverlab.end_points import EndPointError as EndPointError
from diffspace.solverlab.end_points import Reference as Reference
from diffspace.solverlab.end_points import end_point_error as end_point_error
from diffspace.solverlab.end_points import reference as reference
from diffspace.solverlab.fit import fit_solver as fit_solver
from diffspace.solverlab.fit import optimize_steps as optimize_steps
