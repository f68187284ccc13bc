"""Whether a dictionary comes out the same from another start: its atoms, matched one to one with another's."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from normprobe.saes.dictionary import Dictionary


def matched_cosines(dictionary: Dictionary, other: Dictionary) -> Float[np.ndarray, " feature"]:
    """The cosine of each atom with its partner in another dictionary of the same width (arXiv 2501.16615).

    Partners are those of the one-to-one assignment with the largest sum (Hungarian algorithm; width² float64 numbers,
    and time that grows with width³). In few dimensions even random atoms find partners, so a number means something
    only above that of a random dictionary of the same shape.
    """
    cosines = (dictionary.atoms.double() @ other.atoms.double().T).cpu().numpy()
    feature, partner = linear_sum_assignment(cosines, maximize=True)
    return cosines[feature, partner]
