"""The paper's claims of large scale, tried at small scale: trainings, measurements, verdicts and their report."""

from diffspace.reproduction.claims import Claim as Claim
from diffspace.reproduction.parts import PARTS as PARTS, measure as measure
from diffspace.reproduction.scale import SCALES as SCALES, Scale as Scale
from diffspace.reproduction.statements import statements as statements
from diffspace.reproduction.store import Store as Store
