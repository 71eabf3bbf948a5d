"""A small procedure, to be made wrong in one way at a time."""

from copy import deepcopy
from typing import Any

import yaml

from services.recognition.procedure import Procedure
from services.recognition.procedure_file import parse

Words = dict[str, Any]

_SMALL: Words = {
    "code": "SMALL",
    "version": "1.2.3",
    "title": "A small procedure",
    "local_title": "小型流程",
    "lead": "commerce",
    "calendar": "CN",
    "subjects": ["cn.uscc"],
    "effective_from": "2026-01-01T00:00:00+08:00",
    "matters": ["permit"],
    "deemed": "allowed",
    "questions": {
        "foreign": {"title": "Foreign?", "local_title": "外资？", "default": False},
        "grade": {"title": "Grade?", "local_title": "等级？", "values": [1, 2]},
    },
    "escalation": [{"after": "1 working day", "to": "superior"}],
    "stages": {
        "A": {
            "title": "Acceptance",
            "local_title": "受理",
            "agency": "commerce",
            "limit": "5 working days",
            "overdue": "deemed",
            "supplement": True,
            "pauses": {"SUPPLEMENT": "10 working days"},
            "reaches": "ACCEPTED",
        },
        "B": {
            "title": "Check",
            "local_title": "核查",
            "agency": "taxation",
            "after": ["A"],
            "limit": "3 working days",
            "proves": {"fact": "tax_ok", "assurance": "FORM_REVIEW", "valid_for": "P180D"},
            "recognised_by": ["customs", "applicant"],
        },
        "C": {
            "title": "Foreign check",
            "local_title": "外资核查",
            "agency": "foreign-investment",
            "after": ["A"],
            "when": {"foreign": True},
            "limit": "3 working days",
        },
        "D": {
            "title": "Decision",
            "local_title": "决定",
            "agency": "customs",
            "after": ["B", "C"],
            "limits_by": {"question": "grade", "limits": {1: "5 working days", 2: "10 working days"}},
            "extension": {"amount": 3, "approver": "superior"},
            "requires": [{"fact": "tax_ok", "assurance": "FORM_REVIEW", "max_age": "P90D"}],
            "reaches": "DELIVERED",
        },
    },
}


def small() -> Words:
    """The small procedure, in the words of its file: a copy."""
    return deepcopy(_SMALL)


def changed(stage: str = "", **words: Any) -> Words:
    """The small procedure with other words, in a stage or at its head; None takes a word out."""
    made = small()
    place = (
        made["stages"].setdefault(stage, {"title": "New", "local_title": "新", "agency": "commerce"}) if stage else made
    )
    place.update(words)
    for word in [word for word, value in words.items() if value is None]:
        del place[word]
    return made


def read_words(words: Words) -> Procedure:
    """Read a procedure of these words."""
    return parse(yaml.safe_dump(words, allow_unicode=True, sort_keys=False), name="small")
