"""Personal data is found in its usual forms, and what only looks like it is left alone."""

from __future__ import annotations

import pytest

from shared.privacy import find_personal, redact

FOUND = [
    ("Write to jane.doe+shop@mail.example.co.uk, please.", "Write to [EMAIL], please."),
    ("<jörg@müller.de>", "<[EMAIL]>"),
    ("Mail me at o'neil@example.org.", "Mail me at [EMAIL]."),
    ("a@b.io and c@d.io", "[EMAIL] and [EMAIL]"),
    ("My card is 4111 1111 1111 1111, exp 12/27", "My card is [CARD], exp 12/27"),
    ("card 4111111111111111", "card [CARD]"),
    ("5500-0000-0000-0004 was charged", "[CARD] was charged"),
    ("Amex 3782 822463 10005.", "Amex [CARD]."),
    ("Konto DE89 3704 0044 0532 0130 00 bitte", "Konto [IBAN] bitte"),
    ("GB29NWBK60161331926819", "[IBAN]"),
    ("IBAN FR14 2004 1010 0505 0001 3M02 606", "IBAN [IBAN]"),
    ("from 203.0.113.45 yesterday", "from [IP] yesterday"),
    ("The client at 192.168.17.20:8080 hangs", "The client at [IP]:8080 hangs"),
    ("2001:0db8:85a3:0000:0000:8a2e:0370:7334 is mine", "[IP] is mine"),
    ("ping fe80::1ff:fe23:4567:890a", "ping [IP]"),
    ("Call +1 415 555 2671 now", "Call [PHONE] now"),
    ("+49 (0)30 1234567", "[PHONE]"),
    ("+442079460958", "[PHONE]"),
    ("my number: (212) 555-0123.", "my number: [PHONE]."),
    ("212-555-0123 10 times", "[PHONE] 10 times"),
    ("415.555.2671 works too", "[PHONE] works too"),
    ("Tel. 030 / 12345678", "Tel. [PHONE]"),
    ("phone 5551234567", "phone [PHONE]"),
    ("Appelez le 06 12 34 56 78", "Appelez le [PHONE]"),
    ("SSN 536-90-4399", "SSN [SSN]"),
]
CLEAN = [
    "Order 1234567890 of 2024-03-15 was shipped on 15.03.2024 at 12:30:45.",
    "order number 4929 1234 5678 9012",
    "Order id 1234567812345678 and 9999888877776666",
    "ISBN 978-3-16-148410-0 and ISBN 0-306-40615-2",
    "Version 1.2.3.4, Chrome 120.0.6099.109, v10.20.30.40 and 127.0.0.1",
    "It costs $1,234,567.89 or 1 234 567,89 EUR, 49.99 and 1000000",
    "550e8400-e29b-41d4-a716-446655440000",
    "d41d8cd98f00b204e9800998ecf8427e da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "git clone git@github.com:acme/shop.git",
    "logo@2x.png, @jane, a @ b, user@localhost and price@",
    "std::vector<int> and Foo::Bar::baz, at 12:30:45:00",
    "call order 12345678",
    "call f(1234567, 89)",
    "2024-01-02 03:04:05 INFO 1704164645123",
    "pi is 3.14159265358979, e is 2.718281828",
    "rows 100 200 300 400 500 600",
    "The years 2019 2020 2021 2022",
    "tracking 1Z999AA10123456784 and 9400 1000 0000 0000 0000 00",
    "section 3.1.4.1 and chapter 10.2.30.4",
    "zip 10001-1234, part 123-456-789",
    "1,000,000,000 people; 192.168.0.0/16; 255.255.255.0",
    "x = [1111111, 2222222, 3333333]",
    "ID: 4111111111111111x",
    "Ticket #5551234567",
]


@pytest.mark.parametrize(("text", "expected"), FOUND, ids=[text for text, _ in FOUND])
def test_it_is_found_and_replaced(text: str, expected: str) -> None:
    assert redact(text, find_personal(text)) == expected


@pytest.mark.parametrize("text", CLEAN)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text, find_personal(text)) == text
