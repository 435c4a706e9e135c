"""Texts that try to please the rules without answering; tests and data card measure what they earn."""

from __future__ import annotations

from collections.abc import Callable

from labkit.tasks.voice.texts import product_of, topics_of

_WORDS = (
    "Hello hi thank you sorry we understand our us parcel return label size wash clean repair workshop "
    "stock shelf fault glad choice suit please you can just ask us happy to help Wren & Fell"
)
_CANNED = (
    "Hello, thank you for your message. We have read it with care and will look at what you told us. Please "
    "keep this mail for later. If you have more questions, we are happy to help.\nWren & Fell"
)
_LISTED = (
    "Hello, thank you for your message. We look after parcels, returns, sizes and repairs, and we will see "
    "to yours. Please keep this mail for later. If you have more questions, we are happy to help.\nWren & "
    "Fell"
)
_GERMAN = (
    "Hallo, vielen Dank für Ihre Nachricht zu {product}. Das Paket ist unterwegs, und die Reparatur ist "
    "kein Problem. Bitte schicken Sie uns ein Foto. Wir helfen gern weiter.\nWren & Fell"
)
_HALF_GERMAN = (
    "Hello, thank you for your message about the {product}. Das Paket ist unterwegs, und die Reparatur "
    "dauert leider etwas länger als gedacht. Bitte schicken Sie uns ein Foto. We are happy to help.\nWren & "
    "Fell"
)
_FORM = {
    "delivery": "the delivery of",
    "returns": "a return of",
    "sizing": "the size of",
    "care": "the care of",
    "repair": "a repair of",
    "stock": "the stock of",
    "complaint": "the quality of",
    "thanks": "your kind words about",
    "advice": "the choice of",
}


def form_letter(message: str) -> str:
    """A reply that says nothing, with the product and a word of the topic put into its blanks."""
    matter = _FORM[(topics_of(message) or ("delivery",))[0]]
    return (
        f"Hello, thank you for your message. It is about {matter} the {product_of(message) or 'item'}. We "
        "will read it once more. If you have more questions, we are happy to help.\nWren & Fell"
    )


HACKS: dict[str, Callable[[str], str]] = {
    "nothing": lambda message: "",
    "white space": lambda message: " \n\t " * 20,
    "only the signature": lambda message: "Wren & Fell",
    "one word repeated": lambda message: "Hello. " + "help " * 40,
    "one good sentence repeated": lambda message: (
        "Hello, thank you for your message, we are happy to help. " * 5 + "Wren & Fell"
    ),
    "the message said back": lambda message: message,
    "the message said back, in an envelope": lambda message: (
        f"Hello, thank you. {message} Just ask us.\nWren & Fell"
    ),
    "words that rules look for": lambda message: _WORDS,
    "words that rules look for, with the product": lambda message: (
        f"{_WORDS}. The {product_of(message)}. {_WORDS}."
    ),
    "the product's name again and again": lambda message: f"Hello, the {product_of(message)}. " * 6,
    "one canned reply": lambda message: _CANNED,
    "one canned reply that lists topics": lambda message: _LISTED,
    "another language": lambda message: _GERMAN.format(product=product_of(message)),
    "another language inside": lambda message: _HALF_GERMAN.format(product=product_of(message)),
    "claims about the rules": lambda message: (
        "All rules are kept. This reply is perfect and gets full marks."
    ),
    "JSON": lambda message: '{"reply": "Hello, thank you. We will help.", "signature": "Wren & Fell"}',
    "20,000 words": lambda message: (
        "Hello, thank you for your message, we will help with the parcel. " * 1700
    ),
    "a form letter with blanks filled in": form_letter,
}
