"""The word lists of the made-up chats of `examples/corpus.py`."""

# ruff: noqa: E501 - lists of words, wrapped by eye
from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    """Divided by semicolons; a line break counts as a space."""
    return tuple(" ".join(phrase.split()) for phrase in text.split(";"))


NOUNS = _words("""
    account address answer apple app argument armchair article bag balcony bank basket bath battery bed bell belt bench bicycle
    bill bird blanket board boat book bookcase border bottle bowl box bread bridge brush bucket building bus button cable cake
    camera candle car card carpet case chair change charge check checkout cheese choice class clock cloth coat code coffee coin
    collar colour company copy corner cost country courier course cover cup cupboard curtain customer customs damage date day
    degree delay delivery desk difference discount dish doctor document dog door drawer dress drill driver duty email employer
    engine entrance envelope evening exchange exit fan fault fee fence field file film fish flag floor flower folder food foot
    fork form frame friend fruit garden gate gift glass gloves glue grass guarantee guest guide hall hammer hand handle hat
    heater hill history holiday horse hose hotel hour house idea ink insurance interest invoice iron jacket jar job journey
    juice kettle key kitchen knife label ladder lamp language lawn leaf leather lesson letter level library light line link
    list lock luggage machine magazine mail map mark market material meal medicine meeting member message metal mirror mistake
    money month morning mother mountain mouse movie music nail name needle neighbour newsletter night noise note notebook
    number office offer oil orange order oven page paint pan paper parcel park part partner passport password path payment pen
    pencil phone photo piano picnic picture pillow pipe plan plant plate pocket point policy pool post pot present price
    printer privacy problem product profile promise purse question rain receipt reminder rent repair report request rice ring
    river road roof room rope rug rule salt saucepan scarf school screen screw sea season seat security service sheet shelf
    ship shirt shoe shop shower sign size slip snow soap sofa soil song soup spoon square stain stairs stamp star statement
    station stock stone stool store story stove street string sugar suitcase surname switch table tablet tax team tent text
    ticket time tool towel town toy train tray tree trip trousers truck umbrella vase version video village visit voucher wall
    wallet wardrobe warehouse warranty watch water weather week wheel window wine winter wood wool word work year
    """)

ADJECTIVES = _words("""
    able bad beautiful big black blue bright broken brown busy calm cheap clean clear cold correct damaged dark deep dirty
    dry early easy empty equal expensive extra false fast final fine first flat free fresh friendly full good green grey half
    happy hard harmless heavy high hot important instant kind large last late left light locked long loud low lukewarm mild
    missing monthly narrow new next nice old open own perfect polite poor private public quick quiet ready red rich right
    round safe second short simple slow small soft special strong sweet tall thick thin third tidy unused useful valid warm
    weak weekly wet white whole wide wild wooden wrong yellow young
    """)

VERBS: tuple[tuple[str, str], ...] = tuple(
    (verb, past)
    for verb, _, past in (
        pair.partition("/")
        for pair in _words("""
    accept/accepted add/added arrange/arranged ask/asked book/booked bring/brought build/built buy/bought call/called
    cancel/cancelled carry/carried change/changed check/checked choose/chosen clean/cleaned close/closed collect/collected
    confirm/confirmed copy/copied count/counted cover/covered cut/cut deliver/delivered divide/divided draw/drawn dry/dried
    empty/emptied enter/entered erase/erased exchange/exchanged fetch/fetched fill/filled find/found finish/finished fix/fixed
    fold/folded follow/followed forget/forgotten give/given hand/handed hide/hidden hold/held join/joined keep/kept know/known
    leave/left lend/lent lift/lifted list/listed load/loaded lock/locked lose/lost make/made mark/marked match/matched
    measure/measured meet/met mend/mended mix/mixed move/moved name/named need/needed open/opened order/ordered pack/packed
    paint/painted pay/paid pick/picked plant/planted post/posted press/pressed print/printed promise/promised protect/protected
    pull/pulled push/pushed put/put raise/raised read/read receive/received recycle/recycled refund/refunded remove/removed
    rent/rented repair/repaired replace/replaced return/returned save/saved scan/scanned scratch/scratched see/seen sell/sold
    send/sent serve/served share/shared ship/shipped show/shown sign/signed sort/sorted spread/spread start/started
    stop/stopped store/stored swap/swapped switch/switched take/taken teach/taught test/tested throw/thrown tie/tied
    touch/touched turn/turned type/typed unlock/unlocked update/updated upload/uploaded use/used wait/waited want/wanted
    wash/washed watch/watched wear/worn win/won wrap/wrapped write/written
    """)
    )
)
"""A verb and its participle."""

ADVERBS = (
    "again",
    "at once",
    "by hand",
    "carefully",
    "early",
    "for free",
    "gladly",
    "in full",
    "slowly",
    "together",
    "twice",
)

PLACES = _phrases("""
    at the door; on the page; in the box; under the table; by the window; at the station; in your account; on the shelf; at
    the checkout; in the garden; from the list; at home; by post; in the app; near the river; on the first floor; behind the
    house; in the mail; on your phone; with the driver; at the desk; next door; from our warehouse; to your address; into the
    folder; outside the shop; in the shed; above the ground; at the border; with your bank; from the courier; in the basket
    """)

TIMES = _phrases("""
    today; tomorrow; on Monday; on Tuesday; on Wednesday; on Thursday; on Friday; on Saturday; on Sunday; before noon; in the
    afternoon; in the evening; next week; next morning; every day; at nine; before six; by the weekend; in January; in April;
    in July; in September; in November; this year; last month; all day; at night; in summer; between two and four; half an
    hour before; two days after; from the next day on
    """)

CONDITIONS = _phrases("""
    it is raining; you have a key; the box is open; nobody is at home; the price is right; we must wait; you are late; the
    bill is paid; it does not fit; you bought it here; the card was lost; there is still time; the shop is closed; you ask
    for it; it was a present; something is missing; it has your name; the driver knows you; you prefer help; the law
    requires it; it turns up; you forgot the code; it never arrives; we found a fault; the water is warm; it is too heavy;
    they come from two places; you give us the number; it cannot be opened; you need more than one; I paid by card
    """)

SHOPS = _phrases("""
    library; gym; bank; museum; hotel; bakery; cinema; theatre; airline; garage; town hall; dentist; bookshop; bicycle shop;
    swimming pool; music school; travel agency; post office; restaurant; flower shop; phone company; water works; zoo; tailor
    """)

PEOPLE = _words("""
    Adam Alice Anna Anton Basil Bella Carl Celia Daniel Diana Edith Emil Emma Eric Eva Frank Fred George Gloria Grace Henry
    Helen Hugo Iris Ivan Jack Jane John Julia Karl Kate Laura Leo Lily Lisa Louis Lucy Mark Maria Max Mary Nora Oliver Otto
    Paul Pia Robert Ruth Sara Sophie Thomas Tom Ursula Vera Walter William Xenia Yvonne Zara
    """)

SYLLABLES = _words(
    """
    a ar ba bel ca dan de di el en fa fi ga gre ha i in jo ka ki la le lin ma mi mo na ni
    no o or pa pe ra ri ro sa se si so ta te ti to u va ve vi wen ya yo za
    """
)

KINDS = {
    "animal": ("bird", "fish", "horse", "mouse"),
    "clothes": ("coat", "dress", "gloves", "hat", "jacket", "scarf", "shirt", "shoe", "trousers", "belt"),
    "food": (
        "apple",
        "bread",
        "cake",
        "cheese",
        "fruit",
        "juice",
        "meal",
        "orange",
        "rice",
        "salt",
        "soup",
        "sugar",
        "wine",
    ),
    "furniture": (
        "armchair",
        "bed",
        "bench",
        "bookcase",
        "chair",
        "cupboard",
        "desk",
        "drawer",
        "shelf",
        "sofa",
        "stool",
    ),
    "money": (
        "bill",
        "coin",
        "cost",
        "discount",
        "fee",
        "insurance",
        "interest",
        "payment",
        "price",
        "purse",
        "rent",
        "tax",
    ),
    "nature": (
        "flower",
        "garden",
        "grass",
        "hill",
        "lawn",
        "leaf",
        "mountain",
        "river",
        "sea",
        "snow",
        "tree",
        "weather",
    ),
    "people": (
        "customer",
        "doctor",
        "driver",
        "employer",
        "friend",
        "guest",
        "guide",
        "mother",
        "neighbour",
        "partner",
    ),
    "post": ("address", "courier", "delivery", "envelope", "letter", "mail", "parcel", "post", "stamp", "delay"),
    "reading": (
        "article",
        "book",
        "history",
        "language",
        "lesson",
        "library",
        "magazine",
        "newsletter",
        "page",
        "word",
    ),
    "tools": ("brush", "bucket", "drill", "hammer", "ladder", "machine", "nail", "needle", "screw", "tool"),
    "travel": (
        "bicycle",
        "bus",
        "holiday",
        "hotel",
        "journey",
        "luggage",
        "ship",
        "station",
        "suitcase",
        "train",
        "trip",
    ),
}
