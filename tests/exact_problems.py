"""Linear models on groups whose best answer SciPy finds, and training that seeks it."""

import engines
import keras
import numpy as np
from scipy.optimize import minimize

import addloss_kit as alk


class LinearProblem:
    """A linear regression whose groups differ in slopes and noise."""

    def __init__(self, shares, seed, rows=1600, features=4):
        rng = np.random.default_rng(seed)
        self.num_groups = k = len(shares)
        self.ids = rng.choice(k, size=rows, p=shares)
        x = rng.normal(size=(rows, features))
        slopes = 0.4 * rng.normal(size=features) + 0.25 * rng.normal(size=(k, features))
        noise = rng.permutation(np.linspace(0.2, 0.9, k))[self.ids] * rng.normal(size=rows)
        self.y = np.sum(x * slopes[self.ids], axis=1) + noise
        self.x = np.c_[x, np.ones(rows)]
        groups = [(self.x[self.ids == j], self.y[self.ids == j]) for j in range(k)]
        self._quadratic = np.array([a.T @ a / len(b) for a, b in groups])
        self._linear = np.array([a.T @ b / len(b) for a, b in groups])
        self._constant = np.array([np.mean(b**2) for _, b in groups])
        self.shares = np.bincount(self.ids) / rows
        self.least_squares = np.linalg.lstsq(self.x, self.y, rcond=None)[0]

    def means(self, w):
        """Mean squared error of each group."""
        squares = np.einsum("kij,i,j->k", self._quadratic, w, w)
        return squares - 2 * self._linear @ w + self._constant

    def mse(self, w):
        return self.shares @ self.means(w)

    def slopes(self, w):
        return 2 * (self._quadratic @ w - self._linear)

    def smallest_worst(self):
        """The smallest that the largest group error can be, and the weights there."""
        unit = np.r_[np.zeros(len(self.least_squares)), 1.0]
        found = _solve(
            lambda z: z[-1],
            lambda z: unit,
            np.r_[self.least_squares, self.means(self.least_squares).max()],
            lambda z: z[-1] - self.means(z[:-1]),
            lambda z: np.c_[-self.slopes(z[:-1]), np.ones(self.num_groups)],
        )
        return found.fun, found.x[:-1]

    def least_under_bound(self, bound):
        """The smallest MSE with every group's error at or below its bound."""
        found = _solve(
            self.mse,
            lambda w: self.shares @ self.slopes(w),
            self.smallest_worst()[1],
            lambda w: bound - self.means(w),
            lambda w: -self.slopes(w),
        )
        return found.fun

    def least_under_gap(self, bound):
        """The smallest MSE with every *pair's* gap at or below the bound."""
        pairs = [
            (j, k) for j in range(self.num_groups) for k in range(self.num_groups) if j != k
        ]
        first, second = np.array(pairs).T

        def slack(w):
            means = self.means(w)
            return bound - (means[first] - means[second])

        def slack_slope(w):
            slopes = self.slopes(w)
            return slopes[second] - slopes[first]

        rng = np.random.default_rng(0)
        found = []
        for spread in (0.0, 0.3, 0.3, 0.3, 0.3):  # not convex: several starts
            start = self.least_squares + spread * rng.normal(size=self.x.shape[1])
            result = _solve(
                self.mse,
                lambda w: self.shares @ self.slopes(w),
                start,
                slack,
                slack_slope,
            )
            found += [result.fun] if result.success else []
        return min(found)

    def train(self, losses, *, epochs=60, rate=0.02, batch_size=32, **options):
        """Weights after training by batches, and the history."""
        predictor = keras.Sequential(
            [keras.Input((self.x.shape[1] - 1,)), keras.layers.Dense(1)]
        )
        model = alk.build_training_model(predictor, losses, **options)
        packed = alk.pack_inputs(model, self.x[:, :-1], self.y[:, None], group_ids=self.ids)
        steps = epochs * -(-len(self.y) // batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        model.compile(
            keras.optimizers.Adam(schedule),
            steps_per_execution=engines.STEPS_PER_EXECUTION,
        )
        data = alk.make_dataset(packed, batch_size, seed=0)
        history = model.fit(data, epochs=epochs, verbose=0).history
        slopes, intercept = predictor.get_weights()
        return np.r_[slopes[:, 0], intercept].astype("float64"), history


def _solve(value, slope, start, slack, slack_slope):
    constraint = {"type": "ineq", "fun": slack, "jac": slack_slope}
    options = {"maxiter": 500, "ftol": 1e-12}
    return minimize(
        value, start, jac=slope, constraints=constraint, method="SLSQP", options=options
    )
