"""Pages: every row once, in the order of the whole list, whatever is NULL."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select

from agent.base.errors import NotFound
from coordinator.state.paging import Page, count_of, page_of

things = Table(
    "things",
    MetaData(),
    Column("id", String, primary_key=True),
    Column("created_at", Integer, nullable=False),
    Column("name", String),
    Column("size", Integer),
)
NAMES, SIZES = st.one_of(st.none(), st.sampled_from("ab%_")), st.one_of(st.none(), st.integers(0, 2))
ROWS = st.lists(st.tuples(st.integers(0, 3), NAMES, SIZES), max_size=12)
SORT = st.tuples(st.sampled_from(["name", "size", "created_at"]), st.booleans())
SORTS = st.lists(SORT, max_size=3, unique_by=lambda sort: sort[0])


def filled(rows):
    engine = create_engine("sqlite://")
    things.metadata.create_all(engine)
    conn = engine.connect()
    for at, (created, name, size) in enumerate(rows):
        conn.execute(insert(things).values(id=f"{at:02}", created_at=created, name=name, size=size))
    return conn


@settings(max_examples=150)
@given(ROWS, SORTS, st.booleans(), st.integers(1, 5))
def test_pages_put_together_are_the_whole(rows, sorts, last, limit):
    conn = filled(rows)
    sorts = (*sorts, ("id", last))

    def key(row):
        return [((value is not None, value if value is not None else 0), descending)
                for value, descending in ((getattr(row, name), descending) for name, descending in sorts)]  # fmt: skip

    whole = list(conn.execute(select(things)).all())
    for at in reversed(range(len(sorts))):
        whole.sort(key=lambda row: key(row)[at][0], reverse=sorts[at][1])
    seen, marker = [], None
    while True:
        found = page_of(conn, select(things), things, Page(limit, marker, sorts))
        seen += found
        if len(found) < limit:
            break
        marker = found[-1].id
    assert [row.id for row in seen] == [row.id for row in whole]
    assert count_of(conn, select(things).limit(None)) == len(rows)
    conn.close()


def test_a_marker_must_be_among_the_callers():
    conn = filled([(1, "a", 1), (2, "b", 2)])
    assert [row.id for row in page_of(conn, select(things), things, Page(5, "01"), things.c.name == "b")] == ["00"]
    for marker in ("00", "99"):
        with pytest.raises(NotFound):
            page_of(conn, select(things), things, Page(5, marker), things.c.name == "b")
    assert page_of(conn, select(things), things, Page(5, offset=1))[0].id == "00"
    assert page_of(conn, select(things), things, Page(0)) == []
