"""Reports for decisions: errors by group, and what a smaller gap costs."""

from addloss_kit.reports.certificate import Certificate as Certificate
from addloss_kit.reports.certified_choice import CertifiedChoice as CertifiedChoice
from addloss_kit.reports.certified_fit import fit_to_certificate as fit_to_certificate
from addloss_kit.reports.comparison import GroupComparison as GroupComparison
from addloss_kit.reports.curve_training import tradeoff_curve as tradeoff_curve
from addloss_kit.reports.group_report import group_report as group_report
from addloss_kit.reports.report import GroupReport as GroupReport
from addloss_kit.reports.tradeoff import TradeoffCurve as TradeoffCurve
from addloss_kit.reports.tradeoff_point import TradeoffPoint as TradeoffPoint

__all__ = [
    "Certificate",
    "CertifiedChoice",
    "GroupComparison",
    "GroupReport",
    "TradeoffCurve",
    "TradeoffPoint",
    "fit_to_certificate",
    "group_report",
    "tradeoff_curve",
]
