"""Reads of cards. Each is cut to the caller's merchants here, in SQL."""

import re
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select, true
from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher
from services.cards.domain.numbers import looks_like_number, parse_number
from services.cards.models import Assignment, Card
from shared.contracts.cards import AssignmentPage, CardNotFound, CardPage, CardView, NumberInAddress
from shared.paging import LIMIT_DEFAULT, InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport

_LAST4 = re.compile(r"[0-9]{4}", re.ASCII)


def visible(passport: Passport) -> ColumnElement[bool]:
    """Return the condition that leaves the cards of the caller's merchants; a card of none needs all merchants."""
    merchants = passport.merchant_filter()
    return true() if merchants is None else Card.merchant_id.in_(merchants)


def find_card(session: Session, passport: Passport, card_id: str) -> Card:
    """Return a card that the caller may see. Raises: CardNotFound."""
    card = session.scalar(select(Card).where(Card.id == card_id, visible(passport)))
    if card is None:
        raise CardNotFound
    return card


def lock_card(session: Session, passport: Passport, card_id: str) -> Card:
    """Return a card that the caller may see, locked until the transaction ends. Raises: CardNotFound."""
    card = session.scalar(select(Card).where(Card.id == card_id, visible(passport)).with_for_update())
    if card is None:
        raise CardNotFound
    return card


def get_card(session: Session, passport: Passport, *, card_id: str) -> CardView:
    """Return one card. Raises: CardNotFound."""
    return find_card(session, passport, card_id).view()


def list_cards(
    session: Session,
    passport: Passport,
    *,
    q: str | None = None,
    status: str | None = None,
    merchant_id: str | None = None,
    brand: str | None = None,
    currency: str | None = None,
    last4: str | None = None,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> CardPage:
    """Return the cards that fit all filters, newest first.

    q: the last four digits, the BIN, a card's id, or a part of the holder's name.
    Raises: NumberInAddress when `q` is a full number; InvalidCursor.
    """
    exact = {"status": status, "merchant_id": merchant_id, "brand": brand, "currency": currency, "last4": last4}
    query = select(Card).where(visible(passport)).filter_by(**{k: v for k, v in exact.items() if v is not None})
    if q:
        query = query.where(_matches(q.strip()))
    return _page(session, query, limit=limit, cursor=cursor)


def _matches(q: str) -> ColumnElement[bool]:
    if looks_like_number(q):
        raise NumberInAddress.of_field("q", NumberInAddress.title)
    if _LAST4.fullmatch(q):
        return Card.last4 == q
    return or_(Card.holder_name.icontains(q, autoescape=True), Card.id == q, Card.bin == q)


def _page(session: Session, query: Select[Any], *, limit: int, cursor: str | None) -> CardPage:
    if cursor:
        query = query.where(Card.id < position_of(cursor, str))
    cards = list(session.scalars(query.order_by(Card.id.desc()).limit(limit + 1)))
    more = len(cards) > limit
    return {
        "items": [card.view() for card in cards[:limit]],
        "next_cursor": encode_cursor([cards[limit - 1].id]) if more else None,
    }


def position_of(cursor: str, kind: type) -> Any:
    """Return where a list goes on, from a cursor of ours. Raises: InvalidCursor."""
    [position] = decode_cursor(cursor, length=1)
    # What the database cannot hold comes from no list of ours either.
    is_beyond = position >= 2**63 if isinstance(position, int) else "\x00" in str(position)
    if type(position) is not kind or is_beyond:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return position


def search_card(session: Session, passport: Passport, cipher: NumberCipher, *, number: str) -> CardPage:
    """Return the card with exactly this full number, as a list of one or none.

    Raises: InvalidCardNumber.
    """
    indexes = cipher.indexes(parse_number(number))
    card = session.scalar(select(Card).where(Card.number_index.in_(indexes), visible(passport)))
    return {"items": [] if card is None else [card.view()], "next_cursor": None}


def list_assignments(
    session: Session, passport: Passport, *, card_id: str, limit: int = LIMIT_DEFAULT, cursor: str | None = None
) -> AssignmentPage:
    """Return which merchants held the card when, the present one first; other callers' merchants are left out.

    Raises: CardNotFound, InvalidCursor.
    """
    find_card(session, passport, card_id)
    query = select(Assignment).where(Assignment.card_id == card_id)
    merchants = passport.merchant_filter()
    if merchants is not None:
        query = query.where(Assignment.merchant_id.in_(merchants))
    if cursor:
        query = query.where(Assignment.id < position_of(cursor, int))
    rows = list(session.scalars(query.order_by(Assignment.id.desc()).limit(limit + 1)))
    more = len(rows) > limit
    return {
        "items": [row.view() for row in rows[:limit]],
        "next_cursor": encode_cursor([rows[limit - 1].id]) if more else None,
    }
