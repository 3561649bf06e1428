"""Scores of samples, each beside what real data score: Fréchet distance, recognition, memorisation."""

from diffspace.metrics.evaluation import evaluate as evaluate
from diffspace.metrics.features import PCA as PCA
from diffspace.metrics.features import FeatureExtractor as FeatureExtractor
from diffspace.metrics.features import Identity as Identity
from diffspace.metrics.features import default_extractor as default_extractor
from diffspace.metrics.frechet import FeatureStatistics as FeatureStatistics
from diffspace.metrics.frechet import frechet_distance as frechet_distance
from diffspace.metrics.neighbours import Closeness as Closeness
from diffspace.metrics.neighbours import Memorisation as Memorisation
from diffspace.metrics.neighbours import memorisation as memorisation
from diffspace.metrics.neighbours import nearest_neighbours as nearest_neighbours
from diffspace.metrics.recognition import Classifier as Classifier
from diffspace.metrics.recognition import train_classifier as train_classifier
from diffspace.metrics.scores import FrechetScore as FrechetScore
from diffspace.metrics.scores import RecognisedScore as RecognisedScore
from diffspace.metrics.scores import Row as Row
from diffspace.metrics.scores import Scores as Scores
from diffspace.metrics.scores import Share as Share
