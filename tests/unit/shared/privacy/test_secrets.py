"""Secrets are found by the forms of their issuers or by a word before them; placeholders, hashes and code are not."""

from __future__ import annotations

import base64
import random
import string

import pytest

from shared.privacy import find_secrets, redact

DICE = random.Random(7)


def letters(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "9" + "".join(DICE.choices(alphabet, k=count - 1))


def jwt() -> str:
    head, body = (
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"HS256"}', b'{"sub":"12345"}')
    )
    return f"{head}.{body}.{letters(43)}"


# the values are put together here, so that scanners of repositories do not find them
FOUND = [
    (f"AKIA{letters(16, string.ascii_uppercase + string.digits)}", "[KEY]"),
    (f"sk-{letters(48)}", "[KEY]"),
    (f"sk-proj-{letters(60)}", "[KEY]"),
    (f"sk-ant-api03-{letters(80)}", "[KEY]"),
    (f"ghp_{letters(36)}", "[TOKEN]"),
    (f"github_pat_{letters(22)}_{letters(59)}", "[TOKEN]"),
    (f"glpat-{letters(20)}", "[TOKEN]"),
    (f"xoxb-{letters(12, string.digits)}-{letters(24)}", "[TOKEN]"),
    (f"sk_live_{letters(24)}", "[KEY]"),
    (f"AIza{letters(35)}", "[KEY]"),
    (f"hf_{letters(34)}", "[TOKEN]"),
    (f"npm_{letters(36)}", "[TOKEN]"),
    (f"SG.{letters(22)}.{letters(43)}", "[KEY]"),
    (jwt(), "[TOKEN]"),
    (f"-----BEGIN RSA PRIVATE KEY-----\n{letters(64)}\n-----END RSA PRIVATE KEY-----", "[PRIVATE_KEY]"),
]
NAMED = [
    f'api_key = "{letters(32)}"',
    f"API-Key: {letters(40)}",
    f"Authorization: Bearer {letters(40)}",
    f"aws_secret_access_key={letters(40)}",
    "password: Summer2024!",
    "my password is hunter22",
    "İİİİ password: Summer2024!",
    "postgres://shop:s3cretPa55@db.internal/orders",
]
CLEAN = [
    "sk-your-key-here-your-key-here-1234",
    "sk-learn-and-other-libraries-for-python3",
    "api_key = os.environ['API_KEY'], token = get_token(user_id)",
    'api_key: "YOUR_API_KEY_1234567890"',
    "The password must have 8 characters. Password: ********",
    "reset your password within 24hours",
    "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "The key to success is practice; keyboard, monkey and tokens per second: 1234567890",
    "session token: 550e8400-e29b-41d4-a716-446655440000",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----",
    "https://example.com/a?b=c and ftp://user@host/path",
    "eyJust a word. eyJ",
    "secret: the cake is a lie",
    "primary key (id), foreign key: customer_identifier_number_12",
    "max_tokens: 4096, token_count=1234567890123456",
]


@pytest.mark.parametrize(("secret", "placeholder"), FOUND, ids=[secret[:12] for secret, _ in FOUND])
def test_the_forms_of_issuers_are_found_wherever_they_stand(secret: str, placeholder: str) -> None:
    for text in (secret, f"Here: {secret}, thanks.", f'{{"value":"{secret}"}}', f"({secret})"):
        assert redact(text, find_secrets(text)) == text.replace(secret, placeholder)


@pytest.mark.parametrize("text", NAMED)
def test_a_random_value_after_a_word_for_it_is_found(text: str) -> None:
    (span,) = find_secrets(text)
    value = text[span.start : span.end]
    assert value in text and any(each.isdigit() for each in value) and " " not in value


@pytest.mark.parametrize("text", CLEAN)
def test_placeholders_hashes_and_code_are_left_alone(text: str) -> None:
    assert redact(text, find_secrets(text)) == text
