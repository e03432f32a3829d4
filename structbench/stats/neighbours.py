"""How alike neighbouring values of a run are, and what that leaves of their number (docs/methods.md). Pure.

Requests that wait in one queue come fast together and slow together: a thousand of them can say as little as fifty.
Values are in the order in which they were sent. Functions import numpy late, as ``stats`` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

DEPENDENT_Z = 2.33
"""Standard errors above which the correlation of neighbours counts as more than chance: 1 % of independent runs."""
ALIKE_Z = {False: 3.0, True: 2.4}
"""The same for the correlation of neighbouring block means, of four numbers of blocks; True: where neighbours are."""
BLOCK_COUNTS = (8, 16, 24, 32)
INFLATION = 2.0
"""What an autocorrelation time is multiplied by: in short runs, above all lucky ones, it is estimated too low."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What values remember of those before them."""

    n: int
    dependent: bool
    """Whether neighbours are more alike than chance makes them."""
    time: float
    """How many values are worth one independent value; 1 if they are not dependent."""
    blocks_alike: bool
    """Whether even the means of long blocks of neighbours are alike: then the run is too short to tell."""

    @property
    def effective_n(self) -> int:
        return int(self.n / self.time)


class Ranks:
    """The ranks of values, by which all quantiles and the mean of these are judged: made once for all of them.

    Correlations are of ranks, so that no single slow request hides them.
    """

    def __init__(self, values: Array) -> None:
        import numpy as np

        self.values = values
        distinct, places, times = np.unique(values, return_inverse=True, return_counts=True)
        self.ordered: Array = np.repeat(distinct, times)
        """The values, ascending."""
        midranks = np.cumsum(times) - times / 2
        self._ranks: Array = midranks[places]
        covariances = autocovariances(self._ranks)
        n = len(values)
        self._dependent = bool(n > 1 and covariances[1] * math.sqrt(n) > DEPENDENT_Z * covariances[0])
        self._time = _time_of(covariances) if self._dependent else 1.0
        self._blocks_alike = self._are_alike(self._ranks)

    def memory(self, p: float | None = None) -> Memory:
        """Return the memory of the values for their quantile ``p`` or, without one, for their mean.

        For a quantile also of the indicator of the values up to it, whose own memory decides how certain it is.
        """
        import numpy as np

        time, alike = self._time, self._blocks_alike
        if p is not None:
            within = (self.values <= np.quantile(self.ordered, p)).astype(float)
            alike = alike or self._are_alike(within)
            time = max(time, autocorrelation_time(within)) if self._dependent else time
        return Memory(len(self.values), self._dependent, INFLATION * time if self._dependent else 1.0, alike)

    def _are_alike(self, series: Array) -> bool:
        return any(block_correlation(series, count) > ALIKE_Z[self._dependent] for count in BLOCK_COUNTS)


def autocovariances(values: Array) -> Array:
    """Return the autocovariance at each lag, by a Fourier transform."""
    import numpy as np

    n = len(values)
    size = 1 << (2 * n).bit_length()
    spectrum = np.fft.rfft(values - values.mean(), size)
    return np.fft.irfft(spectrum * np.conj(spectrum), size)[:n] / n


def autocorrelation_time(values: Array) -> float:
    """Return the sum of all autocorrelations, at least 1, by Geyer's initial monotone sequence (Stat. Science 7, 1992).

    Sums of two neighbouring lags are positive and fall in theory; what follows the first that is not is noise.
    """
    return _time_of(autocovariances(values))


def _time_of(covariances: Array) -> float:
    import numpy as np

    if len(covariances) < 4 or covariances[0] <= 0:
        return 1.0
    half = len(covariances) // 2
    pairs = (covariances[: 2 * half : 2] + covariances[1 : 2 * half : 2]) / covariances[0]
    kept = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else half
    return max(1.0, 2 * float(np.minimum.accumulate(pairs[:kept]).sum()) - 1)


def block_correlation(values: Array, count: int) -> float:
    """Return von Neumann's test of the means of ``count`` blocks, in standard errors; 0 with under two values a block.

    1 - (sum of squared differences of neighbours) / (2 sum of squares) is the correlation of neighbouring means, with
    a variance of (K - 2) / (K^2 - 1) where there is none (Annals of Mathematical Statistics 12, 1941).
    """
    import numpy as np

    length = len(values) // count
    if length < 2:
        return 0.0
    means = values[: length * count].reshape(count, length).mean(axis=1)
    squares = float(((means - means.mean()) ** 2).sum())
    if squares <= 0:
        return 0.0
    correlation = 1 - float((np.diff(means) ** 2).sum()) / (2 * squares)
    return correlation * math.sqrt((count * count - 1) / (count - 2))
