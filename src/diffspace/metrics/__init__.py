"""Scores of samples, each beside what real data score: Fréchet distance, recognition, memorisation.

And of solvers: how far from the end points of the ODE each ends, for its evaluations.
"""

from diffspace.metrics.classifier import Classifier as Classifier
from diffspace.metrics.classifier import train_classifier as train_classifier
from diffspace.metrics.evaluate import evaluate as evaluate
from diffspace.metrics.features import PCA as PCA
from diffspace.metrics.features import FeatureExtractor as FeatureExtractor
from diffspace.metrics.features import Identity as Identity
from diffspace.metrics.features import default_extractor as default_extractor
from diffspace.metrics.frechet import FeatureStatistics as FeatureStatistics
from diffspace.metrics.frechet import frechet_distance as frechet_distance
from diffspace.metrics.memorisation import Closeness as Closeness
from diffspace.metrics.memorisation import Memorisation as Memorisation
from diffspace.metrics.memorisation import memorisation as memorisation
from diffspace.metrics.memorisation import nearest_neighbours as nearest_neighbours
from diffspace.metrics.scores import FrechetScore as FrechetScore
from diffspace.metrics.scores import RecognisedScore as RecognisedScore
from diffspace.metrics.scores import Row as Row
from diffspace.metrics.scores import Scores as Scores
from diffspace.metrics.scores import Share as Share
from diffspace.metrics.solvers import BUDGETS as BUDGETS
from diffspace.metrics.solvers import STEP_FAMILIES as STEP_FAMILIES
from diffspace.metrics.solvers import Candidate as Candidate
from diffspace.metrics.solvers import Measurement as Measurement
from diffspace.metrics.solvers import Plan as Plan
from diffspace.metrics.solvers import Recommendation as Recommendation
from diffspace.metrics.solvers import Run as Run
from diffspace.metrics.solvers import SolverComparison as SolverComparison
from diffspace.metrics.solvers import compare_solvers as compare_solvers
from diffspace.metrics.solvers import default_candidates as default_candidates
from diffspace.metrics.solvers import moments as moments
from diffspace.metrics.solvers import pareto as pareto
from diffspace.metrics.solvers import plan_runs as plan_runs
from diffspace.metrics.solvers import recommend as recommend
