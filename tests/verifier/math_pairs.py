"""The clear pairs: answers of which a mathematician has no doubt under the policy of mathematics, row by row.

They are written down in `math_pairs_*.py`, by theme. Answers that the policy leaves to taste are in no row.
"""

from tests.verifier.math_pairs_algebra import ALGEBRA
from tests.verifier.math_pairs_identities import IDENTITIES
from tests.verifier.math_pairs_names import NAMES
from tests.verifier.math_pairs_numbers import NUMBERS
from tests.verifier.math_pairs_parts import PARTS
from tests.verifier.math_pairs_several import SEVERAL
from tests.verifier.math_pairs_spellings import SPELLINGS
from tests.verifier.math_pairs_structures import STRUCTURES
from tests.verifier.math_pairs_words import WORDS
from tests.verifier.math_pairs_writing import WRITING
from tests.verifier.pair import Pair

PAIRS: list[Pair] = [
    *NUMBERS,
    *SEVERAL,
    *ALGEBRA,
    *WORDS,
    *IDENTITIES,
    *NAMES,
    *PARTS,
    *WRITING,
    *SPELLINGS,
    *STRUCTURES,
]
ROWS: list[str] = list(dict.fromkeys(pair.row for pair in PAIRS))
