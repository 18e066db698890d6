"""The questions of the customers of Larkfield, a made-up home and garden shop, and the answers of its handbook.

A topic belongs to a department, and has several ways to ask and one policy. Slots in braces are filled for each row:
`{item}` from `ITEMS`, everything else from one of the topic's `facets`, so that an answer often depends on a detail of
the question and cannot be learnt by topic alone.
"""

# ruff: noqa: E501 - questions and answers on one line each read best
from __future__ import annotations

from dataclasses import dataclass

ITEMS = (
    "kettle", "toaster", "floor lamp", "oak table", "bookcase", "garden hose", "wool rug", "armchair", "coffee mill",
    "bread knife", "mirror", "desk", "fan", "heater", "blanket", "saucepan", "wardrobe", "bird feeder", "parasol",
    "lawn mower", "picnic basket", "candle set", "wall clock", "shelf", "duvet", "pillow", "vase", "bench", "barbecue",
    "water butt", "rocking chair", "drill", "ladder", "tool box", "night light", "curtain", "bath mat", "stool",
)  # fmt: skip


@dataclass(frozen=True)
class Topic:
    subject: str
    department: str
    questions: tuple[str, ...]
    policy: str
    facets: tuple[dict[str, str], ...] = ({},)


def _facets(*names: str, rows: str) -> tuple[dict[str, str], ...]:
    """`rows` is one facet per `;`, its values in the order of `names`, divided by commas."""
    return tuple(dict(zip(names, (value.strip() for value in row.split(",")), strict=True)) for row in rows.split(";"))


RETURNS = (
    Topic(
        "returning it", "returns",
        ("How long do I have to return the {item}?", "Until when can I return a {item} that I bought from you?",
         "I changed my mind about the {item}. Is there still time to return it?"),
        "You may return the {item} within sixty days of delivery, as long as it is unused and in its own box.",
    ),
    Topic(
        "a return label", "returns",
        ("Where do I find a return label to post the {item} back?", "I need a return label for the {item}, please.",
         "There was no label in the box for returning my {item}. What now?"),
        "Open your orders page, choose the {item} and press print label. The courier can also print it for you at the door.",
    ),
    Topic(
        "your refund", "returns",
        ("When will I see the refund if I paid by {means}?", "My return arrived last week. I paid by {means}. Where is my refund?",
         "How long does a refund to {means} take?"),
        "A refund to {means} takes {days} days, counted from the moment our warehouse has checked the parcel.",
        _facets("means", "days", rows="credit card, five; bank transfer, three; gift card, two; mobile wallet, four"),
    ),
    Topic(
        "the damage", "returns",
        ("The {item} arrived damaged.", "I opened the parcel and the {item} is damaged.",
         "My new {item} is damaged. It came with a deep crack."),
        "We are sorry that the {item} was damaged. Send us two photos and a new one leaves our warehouse tomorrow, free of charge.",
    ),
    Topic(
        "the wrong colour", "returns",
        ("I ordered the {item} in {colour} and got another colour.", "The {item} should be {colour}, but this one is not.",
         "You sent the wrong colour. My {item} was meant to be {colour}."),
        "That was our mistake. Keep the {item} until the {colour} one arrives, then hand the wrong one to the driver.",
        _facets("colour", rows="green; dark blue; white; red; grey"),
    ),
    Topic(
        "a present", "returns",
        ("My {relative} gave me the {item} as a present and I already own one.", "The {item} was a present from my {relative}. Can I return it?",
         "How do I return a present from my {relative}?"),
        "Presents are returned for store credit. Give us the number on the packing slip, and we promise not to tell your {relative}.",
        _facets("relative", rows="aunt; brother; neighbour; mother; cousin"),
    ),
)  # fmt: skip

DELIVERY = (
    Topic(
        "shipping abroad", "delivery",
        ("How long does shipping to {country} take?", "I live in {country}. Do you ship the {item} abroad?",
         "Do you ship to {country}, and how fast?"),
        "Parcels to {country} travel for {days} working days, and shipping costs {cost} euros whatever the weight.",
        _facets("country", "days", "cost", rows="Norway, six, twelve; Ireland, four, eight; Spain, five, nine; Poland, three, six;"
                "Portugal, seven, ten; Austria, two, five; Greece, eight, eleven"),
    ),
    Topic(
        "the delay", "delivery",
        ("My {item} has not arrived yet. Where is it?", "Still no {item}. It was due on {day}.",
         "My order has not arrived yet. Where is it?"),
        "We are sorry for the delay. If nothing has reached you in two days, we send it again by express, free of charge.",
        _facets("day", rows="Monday; Tuesday; Wednesday; Thursday; Friday"),
    ),
    Topic(
        "the missing parcel", "delivery",
        ("The app says delivered, but the parcel is missing.", "Your courier claims he left the parcel at my door. He did not.",
         "My parcel was marked as delivered and I never got it."),
        "Please look in the shed and ask next door. If it does not turn up by tomorrow noon, we open a search and refund you in full.",
    ),
    Topic(
        "the new address", "delivery",
        ("I am moving to {town}. Can you change the address?", "Please send the parcel to my new flat in {town} instead.",
         "I typed the wrong street. It should go to {town}."),
        "The address can be changed until the parcel is packed. We have asked the warehouse to send yours to {town}.",
        _facets("town", rows="Ashford; Redhill; Marlow; Kendal; Stroud; Whitby"),
    ),
    Topic(
        "express delivery", "delivery",
        ("Is there an express way to get the {item}?", "I need the {item} by the weekend. Do you offer express?",
         "Can the {item} be here tomorrow by express?"),
        "Choose express at the checkout before three in the afternoon. It adds seven euros and the {item} is with you next morning.",
    ),
    Topic(
        "collection", "delivery",
        ("May I collect the {item} from your shop in {town}?", "Could I collect my order in {town} myself?",
         "I would like to collect the {item} at the {town} store."),
        "Collection in {town} is free. Bring your order number and a photo card, and ask at desk {desk} on the ground floor.",
        _facets("town", "desk", rows="Ashford, four; Redhill, two; Marlow, nine; Kendal, six; Whitby, one"),
    ),
    Topic(
        "the evening slot", "delivery",
        ("I work all day. Can you deliver in the evening?", "Nobody is home before six. Do you have evening slots?",
         "Could the driver come in the evening?"),
        "Pick the evening slot on the tracking page. The driver then comes between six and nine and phones you half an hour before.",
    ),
)  # fmt: skip

BILLING = (
    Topic(
        "the invoice", "billing",
        ("I need an invoice for my {reason}.", "Could you send me the invoice as a file? It is for my {reason}.",
         "Where can I download the invoice? My {reason} wants it."),
        "Every invoice waits in your account under documents. For your {reason} choose the version with tax number and stamp.",
        _facets("reason", rows="tax office; employer; landlord; insurance; accountant"),
    ),
    Topic(
        "the double payment", "billing",
        ("You charged my card twice. Why is the payment double?", "I see a double payment for one {item} on my statement.",
         "Why is there a second payment?"),
        "The second entry is only a hold by your bank. It vanishes after four days, and nothing needs to be done by you.",
    ),
    Topic(
        "the declined payment", "billing",
        ("My {means} was declined.", "The checkout does not accept my {means}.", "Paying by {means} fails every time I try."),
        "Please confirm the payment in the app of your bank, then try your {means} again in a private window.",
        _facets("means", rows="credit card; debit card; mobile wallet; gift card"),
    ),
    Topic(
        "payment in parts", "billing",
        ("Can I pay for the {item} in {count} parts?", "Do you offer paying in {count} parts?",
         "I would like to pay {count} parts, one each month."),
        "From one hundred euros on you can pay in {count} equal parts without interest. Tick pay later at the checkout.",
        _facets("count", rows="three; six; ten; twelve"),
    ),
    Topic(
        "the voucher code", "billing",
        ("My code {code} does not work.", "The checkout says that {code} is not valid.", "I forgot to enter the voucher {code}."),
        "The code {code} needs a basket of at least forty euros and ends on Sunday. We can still add it to your order by hand.",
        _facets("code", rows="SPRING; WELCOME; GARDEN; THANKS; HOME"),
    ),
    Topic(
        "the gift card", "billing",
        ("How much is left on my gift card?", "Where do I see the balance of a gift card?",
         "Does my Larkfield gift card run out some day?"),
        "Scratch off the field on the back and type the number on our balance page. Gift cards stay valid for ever.",
    ),
    Topic(
        "the lower price", "billing",
        ("I found the {item} elsewhere at a lower price.", "Another shop has a lower price for the {item}. Do you match it?",
         "The price of the {item} is lower today than when I paid."),
        "We match any lower price found within thirty days. Send us the link and we pay back the difference for the {item}.",
    ),
)  # fmt: skip

ACCOUNT = (
    Topic(
        "your password", "account",
        ("I forgot my password.", "The mail with the new password never arrives.", "How do I set a new password?"),
        "Press forgot password on the sign in page. The mail comes within ten minutes, so please look into the spam folder too.",
    ),
    Topic(
        "the locked account", "account",
        ("My account on the {device} is locked.", "My {device} says too many attempts.", "Why am I locked out of the {device} app?"),
        "After five wrong attempts we lock an account for one hour. Wait, or unlock it now with the code on your {device}.",
        _facets("device", rows="phone; tablet"),
    ),
    Topic(
        "closing your account", "account",
        ("Please close my account and delete all my data.", "I want to be forgotten. How do I close my account?",
         "How can I close my account for good?"),
        "Choose close account under privacy. We erase your data after thirty days and keep only the bills that the law requires.",
    ),
    Topic(
        "the newsletter", "account",
        ("I get far too many newsletters from you.", "Take me off the newsletter.", "How do I stop the weekly newsletter?"),
        "The last line of every newsletter holds a link that ends it at once. We have already taken your address off the list.",
    ),
    Topic(
        "your points", "account",
        ("How many points does a {level} member get for the {item}?", "What are {level} points worth?", "Do my {level} points expire?"),
        "With {level} status each euro earns {points}. One hundred points are one euro, and they last for two years.",
        _facets("level", "points", rows="bronze, one point; silver, two points; gold, three points"),
    ),
    Topic(
        "the language", "account",
        ("The language of your mails is {wrong}, but I read {right}.", "How do I switch the language from {wrong} to {right}?",
         "The language is {wrong} all of a sudden. I want {right} back."),
        "Press the small flag at the foot of any page and choose {right}. Our mails follow the same choice from the next day on.",
        _facets("wrong", "right", rows="German, English; French, Italian; Spanish, French; Dutch, German; Italian, Spanish"),
    ),
)  # fmt: skip

PRODUCT = (
    Topic(
        "the warranty", "product",
        ("How long is the warranty on the {item}?", "Does the warranty cover my {item}? I bought it last year.",
         "Does the {item} come with a warranty?"),
        "Our promise covers the {item} for five years against faults of material and work, and you need no card to claim it.",
    ),
    Topic(
        "a spare part", "product",
        ("I lost a {part} of the {item}.", "Where can I buy a new {part} for my {item}?", "The {part} on my {item} is worn out."),
        "Spare parts are kept for ten years. A new {part} for the {item} costs {cost} euros and fits in a letter.",
        _facets("part", "cost", rows="screw, two; handle, four; wheel, six; cover, eight; switch, five"),
    ),
    Topic(
        "assembly", "product",
        ("How do I build the {item}?", "There were no instructions for building the {item}.", "Can somebody build the {item} for me?"),
        "Scan the label under the {item} for a film that shows every step. A fitter comes for forty euros if you prefer help.",
    ),
    Topic(
        "sold out goods", "product",
        ("Will the {item} be back in stock by {month}?", "The {item} is sold out. Will you get more in {month}?", "I need the {item} in {month}, but it is sold out."),
        "The next delivery of the {item} arrives early in {month}. Press remind me on its page and we hold one for you for two days.",
        _facets("month", rows="March; May; June; August; October"),
    ),
    Topic(
        "cleaning", "product",
        ("How should I clean the {item} after {stain} was spilt on it?", "There is a stain of {stain} on my {item}.", "How do I get {stain} off the {item}?"),
        "Dab the {stain} with lukewarm water and a drop of mild soap, and never scrub. Let the {item} dry away from the sun.",
        _facets("stain", rows="wine; coffee; ink; grass; wax"),
    ),
    Topic(
        "the noise", "product",
        ("The {item} makes a {noise} noise.", "Why does my {item} sound so {noise}?", "There is a {noise} sound whenever I use the {item}."),
        "A {noise} sound in the first week is harmless. Should it stay longer, book a free check and we repair the {item}.",
        _facets("noise", rows="humming; clicking; rattling; squeaking"),
    ),
    Topic(
        "the weather", "product",
        ("Can the {item} stay outside in {season}?", "Will {season} weather hurt the {item}?",
         "Do I need to cover the {item} during {season}?"),
        "Cover the {item} in {season} and raise it a hand above the ground. Moisture from below does more harm than rain.",
        _facets("season", rows="winter; autumn; spring"),
    ),
    Topic(
        "recycling", "product",
        ("Do you take my old {item} away?", "What do I do with the old {item} when the new one comes?",
         "Where can I recycle an old {item}?"),
        "Leave the old {item} by the door on the day of delivery. The driver takes it along and we recycle nearly all of it.",
    ),
)  # fmt: skip

TOPICS: tuple[Topic, ...] = RETURNS + DELIVERY + BILLING + ACCOUNT + PRODUCT
