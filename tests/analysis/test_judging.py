"""Tests of the figures that measure a judge."""

from __future__ import annotations

import json
import random
from statistics import fmean, stdev

import pytest

from harness.analysis.judging import _noise, judging
from harness.core.answers import Answer
from harness.core.judges import Question, Reply
from harness.core.scores import Sample, Score
from harness.core.suite import JudgeRef, Role
from harness.scoring import Opinions, Scoring, judged, score
from tests.support.synthetic_runs import synthetic_results
