"""Operators that run on the host: text, sequences, control flow, signals, random numbers."""

from __future__ import annotations

from clinfer.operators import Operator, plain
from clinfer.operators.relations import one, rank
from clinfer.operators.values import DTYPE, NATURAL, POSITIVE, SOME_DTYPE, SWITCH, TEXT, words

_RANDOM = {"dtype": SOME_DTYPE, "shape": NATURAL}
_WINDOW = {"output_datatype": DTYPE}

OPERATORS = (
    *plain(
        "ConcatFromSequence Loop Optional OptionalGetElement OptionalHasElement Scan "
        "SequenceConstruct SequenceErase SequenceInsert SequenceLength SequenceMap StringConcat"
    ),
    # control and sequences
    Operator("If", relations=(one(0),)),
    Operator("SequenceAt", relations=(one(1),)),
    Operator("SequenceEmpty", {"dtype": DTYPE}),
    Operator("SplitToSequence", {"keepdims": SWITCH}),
    # text
    Operator("RegexFullMatch", {"pattern": TEXT}),
    Operator(
        "StringNormalizer",
        {"case_change_action": words("LOWER", "UPPER", "NONE"), "locale": TEXT, "stopwords": TEXT},
    ),
    Operator("StringSplit", {"delimiter": TEXT}),
    Operator("TfIdfVectorizer", {"mode": words("TF", "IDF", "TFIDF"), "pool_strings": TEXT}),
    Operator("ImageDecoder", {"pixel_format": words("RGB", "BGR", "Grayscale")}, (rank(0, 1),)),
    # signals
    *(Operator(f"{name}Window", _WINDOW, (one(0),)) for name in ("Blackman", "Hamming", "Hann")),
    Operator("DFT", {"inverse": SWITCH, "onesided": SWITCH}, (rank(0, least=2), one(1, 2))),
    Operator("MelWeightMatrix", _WINDOW, (one(0, 1, 2, 3, 4),)),
    Operator("STFT", {"onesided": SWITCH}, (rank(0, 2, 3), one(1, 3), rank(2, 1))),
    # random numbers
    Operator("Bernoulli", _RANDOM),
    Operator("Multinomial", {"dtype": DTYPE, "sample_size": POSITIVE}, (rank(0, 2),)),
    *(
        Operator(f"Random{kind}{form}", _RANDOM)
        for kind in ("Normal", "Uniform")
        for form in ("", "Like")
    ),
)
