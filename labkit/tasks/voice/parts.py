"""Phrase data of the voice family: the parts that every reply shares, and what spoils a draft.

Slots as in `matters.py`. A part under a topic's name is for replies on that topic, one under "any" for all of them.
"""
# ruff: noqa: E501

from __future__ import annotations

# ---- parts of a good reply ------------------------------------------------------------------------------

GREETINGS = ["Hello,", "Hello,", "Hi,", "Hello there,", "Hi there,"]

_ASKED = [
    "thank you for your message.", "thank you for your message.", "thanks for your question about {the}.",
    "thank you for asking about {the}.", "thanks for your message about {the}.", "thank you for your question.",
    "thank you for getting in touch.", "thanks for writing to us.", "thanks for your message.", "thank you for asking us.", "we understand that you want to know more.",
    "we appreciate that you ask about {the}.",
]
ACKNOWLEDGE = {
    "delivery": [*_ASKED, "we understand that waiting is no fun.", "we understand that you want {your} safe and sound."],
    "returns": [*_ASKED, "thank you for telling us about {the}."],
    "sizing": _ASKED,
    "care": [*_ASKED, "thank you for looking after {your} so well."],
    "repair": [*_ASKED, "we are sorry about the damage.", "thank you for not giving up on {your}."],
    "stock": [*_ASKED, "thank you for your patience with {the}."],
    "complaint": [
        "we are sorry to read this about {your}.", "we are sorry for the trouble with {your}.", "we understand how annoying this is.",
        "thank you for telling us honestly about {your}.", "we are sorry that {your} gave you so much trouble.",
        "thank you for writing to us about {your}.", "we understand your anger about {your}.", "we are sorry.",
    ],
    "thanks": [
        "thank you for your kind words about {the}.", "thank you for taking the time to write.", "thank you for the lovely message about {the}.",
        "thanks for such a friendly message.", "we appreciate your message about {the}.", "thank you for thinking of us.",
        "thanks for writing to us about {the}.",
    ],
    "advice": [*_ASKED, "thank you for asking us before you buy {the}."],
}  # fmt: skip

EXTRAS = {
    "delivery": ["The box is sturdy and easy to open.", "Our packers take care that nothing rattles.",
                 "Our own team packs every box by hand."],
    "returns": ["Nobody here will ask for a long story.", "The way back takes about as long as the way to you.",
                "A thing that is not used helps nobody."],
    "sizing": ["A comfortable fit makes long days shorter.", "The table was measured on our own team.",
               "A good fit matters more than the number."],
    "care": ["A little care adds years of use.", "Dirt does more harm than wear.", "Good gear deserves a little patience."],
    "repair": ["We would rather mend a thing than see it thrown away.", "The people at the bench like a good puzzle.",
               "Everything we sell is made to be mended."],
    "stock": ["We make small batches, so that each piece gets a proper check.", "We would rather make a few good ones than many.",
              "Our own team has to wait as well."],
    "complaint": ["Your message helps us to do better.", "We share what you told us with the people concerned.",
                  "We read every such message in the whole team."],
    "thanks": ["A message like yours brightens the darkest day in the warehouse.", "We hope for many more trips with you.",
               "We read every message ourselves, and yours twice."],
    "advice": ["Every trip is a little different.", "We have been out with {it} in all kinds of weather.",
               "Our own team takes the same gear on its trips."],
}  # fmt: skip

OFFERS = [
    "If anything is unclear, just write to us and we will help.",
    "If you have more questions, we are happy to help.",
    "Just reply to this message if we can help with anything else.",
    "We are here to help if something else comes up.",
    "Please write back any time, and we will gladly help.",
    "Let us know if we can help with anything else.",
    "Should you need more help, just write to us.",
    "We are always glad to help, so just ask us.",
    "For anything else, just ask us.",
    "We are happy to help with more.",
    "Just write to us if you need more help.",
    "Do ask us if you are unsure.",
    "Whatever else you need, get in touch with us.",
]
SIGNATURES = ["\nWren & Fell", "\nWren & Fell", "\nWren & Fell", "\nKind regards, Wren & Fell", "\nBest wishes, Wren & Fell"]

# Everything a very short reply says on a topic: with no next step, and with one.
SHORT = {
    "delivery": (["{the} {is} on the way."], ["Please track {the} online."]),
    "returns": (["{the} may come back."], ["Please send {the} back."]),
    "sizing": (["{the} fit{s} true to size."], ["Please measure {the} first."]),
    "care": (["{the} prefer{s} gentle care."], ["Please clean {the} gently."]),
    "repair": (["Our workshop mends {the}."], ["We will mend {the}."]),
    "stock": (["{the} {is} in stock."], ["Please reserve {the} online."]),
    "complaint": (["That is a fault of {the}."], ["We will put {the} right."]),
    "thanks": (["{the} made us smile."], ["Please enjoy {the} with a smile."]),
    "advice": (["{the} suit{s} you well."], ["We suggest {the}, a good choice."]),
}  # fmt: skip
SHORT_ACKNOWLEDGE = ["thanks.", "thank you."]
SHORT_SORRY = ["sorry.", "we are sorry."]
SHORT_OFFERS = ["Just ask us.", "Happy to help.", "We will help."]

# ---- what spoils a draft ------------------------------------------------------------------------------------

NO_GREETING = ["Dear customer,", "Dear Sir or Madam,", "Good day,", "", "", "Greetings,"]
NO_ACKNOWLEDGE = [
    "this is about {your}.", "here is our answer about {the}.", "your message about {the} has reached us.",
    "we have read what you wrote about {the}.", "your message is here.", "this is Wren & Fell.",
]  # fmt: skip
SHORT_NO_ACKNOWLEDGE = ["noted.", "all read."]
VAGUE_FACTS = [
    "{your} {is} known to us.", "We have made a note about {your}.", "We have read everything about {your} with great interest.",
    "What you write about {the} has been passed on inside the team.", "There are many things to say about {the}, and each one counts.",
    "Things like this happen from time to time with {the}.",
]  # fmt: skip
VAGUE_STEPS = ["We will see what happens next.", "You can leave this with us for now.", "We will think about it and tell you more then."]  # fmt: skip
VAGUE_SHORT = (["We know {the}."], ["We will see about {the}."])

DATES = {
    "any": ["You will hear from us by Tuesday.", "All of this takes three days at most.", "Expect our call tomorrow.",
            "It is all done by next week.", "A colleague calls you on Monday morning.", "Give us two working days.",
            "Everything is settled within 48 hours."],
    "delivery": ["It arrives on Friday at the latest.", "The courier rings at your door tomorrow.", "It is with you in three days."],
    "returns": ["Your money is back within five days.", "The label reaches you on Wednesday."],
    "repair": ["The workshop is done with it in two weeks.", "It is back with you by the end of March."],
    "stock": ["It is back on Monday.", "More of it arrives within ten days.", "It is back by the third of May."],
    "thanks": ["Your words go up on our wall tomorrow.", "The team reads this aloud on Friday.", "The next newsletter comes on Monday."],
}  # fmt: skip
PROMISES = {
    "any": ["You get 10% off your next order.", "There is a voucher for you in your account.", "We will give you a discount for this.",
            "The next order ships free of charge.", "A small gift card is on its way to you."],
    "returns": ["You get your money back in any case.", "We will give you a full refund.", "A full refund is certain.", "We refund every penny and the postage too."],
    "repair": ["The repair is free of charge.", "We will replace it for free."],
    "complaint": ["You get your money back in any case.", "We will give you a full refund.", "You get a new one free of charge.", "We refund the price in full."],
}  # fmt: skip
BLAME = {
    "any": ["You should have asked us before.", "You could have found this on our site.", "If you had read the manual, this would be clear.",
            "Nobody else has this problem.", "You clearly overlooked the description."],
    "delivery": ["You should have been at home.", "You must have missed the mail with the link.", "You failed to check the address."],
    "returns": ["You should have thought about that before you ordered.", "You did not read the terms, it seems."],
    "sizing": ["You should have looked at the table first.", "It is your own fault if you guess."],
    "care": ["You must have used the wrong soap.", "You should have followed the label."],
    "repair": ["You must have handled it roughly.", "This is your own mistake.", "You should have stopped using it earlier."],
    "stock": ["You should have ordered when you saw it.", "You forgot to sign up for news."],
    "complaint": ["You must have used it the wrong way.", "It is partly your own fault.", "You should have told us politely."],
    "thanks": ["You could have told us that earlier.", "You should have written a public review."],
    "advice": ["You should have read the tests.", "You did not tell us enough."],
}  # fmt: skip
REGRETS = {
    "any": ["Unfortunately, this takes a little patience.", "Sadly, we are short of hands at the moment.",
            "Unfortunately, we cannot say more from here.", "Regrettably, it is a busy season.", "We are afraid that this is all we know."],
    "delivery": ["Unfortunately, couriers are slow at the moment.", "Sadly, parcels do get stuck at times."],
    "returns": ["Unfortunately, the way back takes a while.", "We are afraid that the form is a little long."],
    "sizing": ["Unfortunately, every foot and back is different.", "Sadly, no table is right for everybody."],
    "care": ["Unfortunately, some stains stay for good.", "Sadly, there is no quick way."],
    "repair": ["Unfortunately, a trace of the damage stays.", "Sadly, not everything can be saved."],
    "stock": ["Unfortunately, the mill is slow.", "Regrettably, many others are waiting too."],
    "complaint": ["Unfortunately, such things slip through.", "We regret that it came to this."],
    "thanks": ["Unfortunately, few people take the time to write.", "Sadly, we seldom get such mail."],
    "advice": ["Unfortunately, there is no single answer.", "Sadly, no product is right for everything."],
}  # fmt: skip
ORDERS = {
    "any": ["You have to give us the number of your order.", "You need to keep the receipt.", "You must read the manual first.",
            "Be sure to answer all of our questions."],
    "delivery": ["You must be at home when it comes.", "You need to keep an eye on your mail.", "Make sure that your name is on the bell."],
    "returns": ["You have to use a sturdy box.", "You must stick the label on straight.", "Make sure that it is clean."],
    "sizing": ["You need to measure twice.", "You have to leave the tags on."],
    "care": ["You must not use any softener.", "You have to rinse it well.", "Make sure that it is fully dry."],
    "repair": ["You have to stop using it at once.", "You need to clean it first."],
    "stock": ["You need to be quick when it is back.", "You have to sign in first."],
    "complaint": ["You need to send us proof.", "You have to keep all the parts."],
    "thanks": ["You have to come and see us.", "You must tell your friends about it."],
    "advice": ["You need to decide how far you want to walk.", "You have to try it out first."],
}  # fmt: skip
STIFF = ["Please be advised that", "We wish to inform you that", "With regard to your enquiry,", "As per our records,",
         "We hereby confirm that", "Kindly note that"]  # fmt: skip
HYPE = {
    "any": ["{the} {is} absolutely unbeatable.", "{the} {is} an amazing piece of gear.", "{the} {is} the ultimate companion.",
            "Our team is totally awesome at this.", "It is an incredible product.", "You will not find a more fantastic shop."],
    "complaint": ["{the} {is} normally absolutely unbeatable.", "Our quality is usually fantastic.", "Our team is totally awesome at this."],
    "thanks": ["That is absolutely fantastic.", "{the} {is} simply amazing.", "We are thrilled beyond words.", "What an awesome story."],
}  # fmt: skip
FILLERS = [
    "There is a lot to say about {the}, and we like to talk about such things at length.",
    "As you may know, we have been making outdoor things for a long time, and we still enjoy it.",
    "Many other people have asked about {the} before, and there will be many more.",
    "The whole story would fill a book, so this is the short version of it.",
    "In the end it all depends on this and that, as is so often the case in life.",
    "We could go on, since there are several more points that one might mention here.",
]  # fmt: skip
NO_SIGNATURE = ["", "", "\nKind regards", "\nThe service team", "\nYour customer service", "\nWren and Fell"]
SECOND_OFFERS = ["We are happy to help with all of this.", "Let us know what you think.", "Just ask us about the details."]
EMOJI = ["🙂", "😊", ":)", "👍", "🙏"]
LINKS = ["More at www.wrenandfell.example/help.", "See https://wrenandfell.example for more."]
# Words that a careless writer puts in capitals.
SHOUTED = r"\b(please|thank you|thanks|not|never|always|sorry|only|before|first|any|all|more|happy|gladly|just)\b"
