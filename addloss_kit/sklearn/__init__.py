"""Estimators for scikit-learn: `fit(X, y, sensitive_features=…)`.

Not imported by `import addloss_kit`: scikit-learn is an extra.
"""

try:  # not used here: a missing package shall be told by our message
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "`addloss_kit.sklearn` needs scikit-learn. Install the extra: "
        "pip install 'addloss_kit[sklearn]'."
    ) from error

from addloss_kit.sklearn.classifier import GroupClassifier as GroupClassifier
from addloss_kit.sklearn.regressor import GroupRegressor as GroupRegressor

__all__ = ["GroupClassifier", "GroupRegressor"]
