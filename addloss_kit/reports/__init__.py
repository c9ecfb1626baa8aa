"""Reports for decisions: errors by group, and what a smaller gap costs."""

from addloss_kit.reports.certificate import Certificate as Certificate
from addloss_kit.reports.comparison import GroupComparison as GroupComparison
from addloss_kit.reports.group_report import GroupReport as GroupReport
from addloss_kit.reports.group_report import group_report as group_report
from addloss_kit.reports.tradeoff import TradeoffCurve as TradeoffCurve
from addloss_kit.reports.tradeoff import TradeoffPoint as TradeoffPoint
from addloss_kit.reports.tradeoff import tradeoff_curve as tradeoff_curve

__all__ = [
    "Certificate",
    "GroupComparison",
    "GroupReport",
    "TradeoffCurve",
    "TradeoffPoint",
    "group_report",
    "tradeoff_curve",
]
