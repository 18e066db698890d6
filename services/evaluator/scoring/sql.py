"""SQL answers, by the parser of sqlglot: whether they are statements, and whether two are the same one.

The same are statements that differ in spelling only: case of keywords and of names without quotes, white space,
comments, quotes around names that need none, brackets that change nothing, `<>` and `!=`, `JOIN` and `INNER JOIN`, the
order of what AND and OR connect. Nothing is executed, so queries that mean the same by different means are different.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.simplify import simplify

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # its warnings quote the statement, which is text of a user

DIALECTS = ("", "mysql", "tsql", "bigquery")
"""The first that reads a statement counts; the first of all is a superset of most. Backticks and square brackets around
names need their own."""
LONGEST = 20_000
"""In characters. A longer text is compared as a text."""
_FIRST_WORDS = re.compile(r"[\s(]*(?:select|with|insert|update|delete|create|alter|drop|merge)\b", re.IGNORECASE)
_STATEMENTS = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Alter, exp.Drop, exp.Merge)
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def is_statement(text: str) -> bool:
    """Whether the text is SQL: it begins like a statement, can be parsed as one, and is no sentence that happens to
    ("Select a plan")."""
    return _normalised(text) is not None


def sql(reference: str, answer: str) -> dict[str, float]:
    """`sql_valid`: the answer is SQL where the reference is. `sql_match`: both are the same statements. Where the
    reference is no SQL, both are 1.0 if the answer is none either."""
    wanted, given = _normalised(reference), _normalised(answer)
    if wanted is None:
        return dict.fromkeys(("sql_valid", "sql_match"), float(given is None))
    return {"sql_valid": float(given is not None), "sql_match": float(given == wanted)}


@lru_cache(maxsize=4096)
def _normalised(text: str) -> tuple[str, ...] | None:
    """The statements in one spelling; None: it is not SQL."""
    if len(text) > LONGEST or not _FIRST_WORDS.match(text):
        return None
    for dialect in DIALECTS:
        try:
            statements = [found for found in sqlglot.parse(text, dialect=dialect or None) if found is not None]
            if statements and all(_sound(statement) for statement in statements):
                return tuple(_spelt(statement) for statement in statements)
        except (SqlglotError, RecursionError, ValueError, KeyError, AttributeError, TypeError):
            continue
    return None


def _sound(statement: exp.Expr) -> bool:
    """It is a statement, and selects from somewhere, or values: `SELECT a plan` reads a column `a`, named `plan`."""
    if not isinstance(statement, _STATEMENTS):
        return False
    if isinstance(statement, exp.Update):  # "Update your app" sets nothing
        return bool(statement.expressions)
    query = statement.unnest() if isinstance(statement, exp.Subquery) else statement
    if isinstance(query, exp.Select) and query.args.get("from_") is None and query.args.get("from") is None:
        return not list(query.find_all(exp.Column))
    return True


def _spelt(statement: exp.Expr) -> str:
    tree = normalize_identifiers(statement)
    for name in tree.find_all(exp.Identifier):
        if _PLAIN_NAME.fullmatch(name.this):
            name.set("quoted", False)
    for join in tree.find_all(exp.Join):
        if str(join.args.get("kind") or "").upper() == "INNER":
            join.set("kind", None)
        if str(join.args.get("kind") or "").upper() == "OUTER":  # LEFT OUTER JOIN is LEFT JOIN
            join.set("kind", None)
    return str(simplify(tree).sql(comments=False, normalize_functions="upper"))
