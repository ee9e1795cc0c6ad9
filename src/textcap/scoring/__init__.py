"""Score captions with the usual captioning metrics: from reference and prediction files to a report.

from textcap.scoring import score_files

report = score_files("refs.json", ["predictions.json"], metrics="cider_d,spice,spider")
"""

from textcap.scoring.comparison import Comparison
from textcap.scoring.metrics import ScoreSettings
from textcap.scoring.report import Report, ReportSettings, report_to_dict, score_files, write_scores
from textcap.scoring.results import MetricScore

__all__ = [
    "Comparison",
    "MetricScore",
    "Report",
    "ReportSettings",
    "ScoreSettings",
    "report_to_dict",
    "score_files",
    "write_scores",
]
