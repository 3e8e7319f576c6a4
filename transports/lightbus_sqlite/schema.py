"""The tables of the file, and all SQL statements.

An event is stored once. A row of ``delivery`` is an entry in one listener's queue; sending adds one
for each listener that is declared for the event. ``available_at`` is 0 for a delivery that is
ready. Otherwise it is the end of the lease of a worker, or the end of a delay, in Unix time.
``owner`` identifies a lease. ``begun`` is 1 from just before a listener receives the delivery until
the delivery is settled. ``returns`` counts redeliveries. ``wanted`` lists the events for which
listeners are declared. ``kept`` counts the copies that are stored for a tail.
"""

from __future__ import annotations

# "lbus" in ASCII, to tell the file from that of another program
APPLICATION_ID = 0x6C627573
VERSION = 4

# Copies of events for processes that show events live. A tail expires if it is not renewed.
_CREATE_TAILS = """
CREATE TABLE tail (
    id TEXT PRIMARY KEY,
    api TEXT NOT NULL,
    expires_at REAL NOT NULL,
    kept INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE tailed_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tail TEXT NOT NULL,
    message_id TEXT NOT NULL,
    api TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    version INTEGER NOT NULL,
    fired_at TEXT NOT NULL,
    service TEXT NOT NULL,
    traceparent TEXT NOT NULL
) STRICT;
CREATE INDEX tailed_event_by_tail ON tailed_event (tail, id);
"""

# The open streams of workers. The row of a worker that was killed expires.
_CREATE_CONSUMERS = """
CREATE TABLE consumer (
    id TEXT PRIMARY KEY,
    listener INTEGER NOT NULL,
    expires_at REAL NOT NULL
) STRICT;
"""

CREATE = f"""
CREATE TABLE file (id TEXT NOT NULL) STRICT;

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL,
    api TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    version INTEGER NOT NULL,
    fired_at TEXT NOT NULL,
    service TEXT NOT NULL,
    traceparent TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE listener (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    api TEXT NOT NULL,
    UNIQUE (service, name, api)
) STRICT;

CREATE TABLE wanted (
    api TEXT NOT NULL,
    event_name TEXT NOT NULL,
    listener INTEGER NOT NULL REFERENCES listener (id),
    PRIMARY KEY (api, event_name, listener)
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    listener INTEGER NOT NULL,
    event INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    returns INTEGER NOT NULL DEFAULT 0,
    available_at REAL NOT NULL DEFAULT 0,
    owner TEXT,
    first_failed_at TEXT,
    begun INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX delivery_by_time ON delivery (listener, available_at, id);
CREATE INDEX delivery_by_event ON delivery (event);

CREATE TRIGGER event_without_deliveries AFTER DELETE ON delivery
WHEN NOT EXISTS (SELECT 1 FROM delivery WHERE event = OLD.event)
BEGIN
    DELETE FROM event WHERE id = OLD.event;
END;

CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    service TEXT NOT NULL,
    message_id TEXT NOT NULL,
    api TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    version INTEGER NOT NULL,
    fired_at TEXT NOT NULL,
    fired_by TEXT NOT NULL,
    failure TEXT NOT NULL,
    traceparent TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX dead_letter_by_service ON dead_letter (service, id);
{_CREATE_TAILS}
{_CREATE_CONSUMERS}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

# The statements that upgrade a file from each version to the next
UPGRADES = {
    1: f"""
    ALTER TABLE event ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';
    ALTER TABLE dead_letter ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';
    {_CREATE_TAILS}
    PRAGMA user_version = 2;
    """,
    2: """
    ALTER TABLE delivery ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
    PRAGMA user_version = 3;
    """,
    3: f"""
    {_CREATE_CONSUMERS}
    PRAGMA user_version = 4;
    """,
}

# In one statement, so that another process cannot create tables in between
READ_FORMAT = """
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
FROM pragma_application_id, pragma_user_version
"""

SET_FILE_ID = "INSERT INTO file (id) VALUES (?)"
READ_FILE_ID = "SELECT id FROM file"

# A random id, so that a new listener does not get the id of a removed one, whose worker may still
# run.
ADD_LISTENER = """
INSERT OR IGNORE INTO listener (id, service, name, api)
VALUES (random() & 0x7fffffffffff, ?, ?, ?)
"""
FIND_LISTENER = "SELECT id FROM listener WHERE service = ? AND name = ? AND api = ?"
ADD_BINDING = "INSERT OR IGNORE INTO wanted (api, event_name, listener) VALUES (?, ?, ?)"

ADD_CONSUMER = """
INSERT OR REPLACE INTO consumer (id, listener, expires_at) VALUES (?, ?, ?)
"""
RENEW_CONSUMER = """
INSERT OR REPLACE INTO consumer (id, listener, expires_at)
SELECT ?, id, ? FROM listener WHERE id = ?
"""
REMOVE_CONSUMER = "DELETE FROM consumer WHERE id = ?"
REMOVE_EXPIRED_CONSUMERS = "DELETE FROM consumer WHERE expires_at <= ?"
LIST_QUEUES = """
SELECT name, api, (SELECT count(*) FROM delivery WHERE listener = listener_.id)
FROM listener AS listener_ WHERE service = ? ORDER BY name, api
"""
IS_IN_USE = """
SELECT EXISTS (SELECT 1 FROM consumer WHERE listener = :listener AND expires_at > :now)
    OR EXISTS (
        SELECT 1 FROM delivery
        WHERE listener = :listener AND owner IS NOT NULL AND available_at > :now
    )
"""
COUNT_DELIVERIES = "SELECT count(*) FROM delivery WHERE listener = ?"
REMOVE_LISTENER = (
    "DELETE FROM wanted WHERE listener = ?",
    "DELETE FROM delivery WHERE listener = ?",
    "DELETE FROM listener WHERE id = ?",
)

# Whether a listener, or a tail, receives an event
FIND_RECEIVERS = """
SELECT
    EXISTS (SELECT 1 FROM wanted WHERE api = ? AND event_name = ?),
    EXISTS (SELECT 1 FROM tail WHERE api = ?)
"""
# The columns of a message
_MESSAGE = "message_id, api, name, body, version, fired_at, service, traceparent"
_VALUES = "?, ?, ?, ?, ?, ?, ?, ?"
# In a dead letter, `service` is the service that dead-lettered the event.
_DEAD_MESSAGE = _MESSAGE.replace("service", "fired_by")

ADD_EVENT = f"INSERT INTO event ({_MESSAGE}) VALUES ({_VALUES})"
ADD_DELIVERIES = """
INSERT INTO delivery (listener, event)
SELECT listener, ? FROM wanted WHERE api = ? AND event_name = ?
"""

ADD_DELIVERY = "INSERT INTO delivery (listener, event, attempt) VALUES (?, ?, ?)"

# How many copies are stored for a tail that is not read; fewer if they are large
_MAX_TAILED = 1000
_HAS_SPACE = f"FROM tail WHERE api = ? AND kept < {_MAX_TAILED}"
ADD_TAILED_EVENT = f"""
INSERT INTO tailed_event (tail, {_MESSAGE}) SELECT id, {_VALUES} {_HAS_SPACE}
"""
COUNT_TAILED_EVENT = f"""
UPDATE tail SET kept = kept + 1 + ? / 16384 WHERE id IN (SELECT id {_HAS_SPACE})
"""
RESET_TAIL_COUNT = "UPDATE tail SET kept = 0 WHERE id = ?"
REMOVE_EXPIRED_TAILS = "DELETE FROM tail WHERE expires_at <= ?"
REMOVE_ORPHANED_TAILED_EVENTS = "DELETE FROM tailed_event WHERE tail NOT IN (SELECT id FROM tail)"
ADD_TAIL = "INSERT INTO tail (id, api, expires_at) VALUES (?, ?, ?)"
RENEW_TAIL = "UPDATE tail SET expires_at = ? WHERE id = ?"
REMOVE_TAIL = "DELETE FROM tail WHERE id = ?"
POP_TAILED_EVENTS = f"DELETE FROM tailed_event WHERE tail = ? RETURNING id, {_MESSAGE}"

COUNT_BY_STATE = """
SELECT
    coalesce(sum(available_at <= :now), 0),
    coalesce(sum(available_at > :now AND owner IS NULL), 0),
    coalesce(sum(available_at > :now AND owner IS NOT NULL), 0)
FROM delivery WHERE listener = :listener
"""
NEXT_AVAILABLE_AT = "SELECT min(available_at) FROM delivery WHERE listener = ?"

# Leases and delays that a wrong clock made too long
SHORTEN_WAITS = """
UPDATE delivery SET available_at = :at WHERE listener = :listener AND available_at > :beyond
"""
# An expired lease counts as an attempt only if a listener had received the delivery.
RELEASE_DUE = """
UPDATE delivery
SET available_at = 0, owner = NULL, attempt = attempt + begun, returns = returns + begun, begun = 0
WHERE listener = ? AND available_at > 0 AND available_at <= ?
"""
SELECT_READY = f"""
SELECT delivery.id, attempt, returns, first_failed_at, {_MESSAGE}
FROM delivery JOIN event ON event.id = delivery.event
WHERE listener = ? AND available_at = 0
ORDER BY delivery.id
LIMIT ?
"""
LEASE = "UPDATE delivery SET available_at = ?, owner = ?, begun = ? WHERE id = ?"
FIND_EVENT = """
SELECT
    listener.service, listener.name, attempt, available_at, owner IS NOT NULL,
    message_id, event.api, event.name, body, version, fired_at, event.service, traceparent
FROM event
JOIN delivery ON delivery.event = event.id
JOIN listener ON listener.id = delivery.listener
WHERE substr(message_id, 1, length(?)) = ?
ORDER BY event.id, listener.service, listener.name
LIMIT 100
"""
# Each lease has an owner of its own, so a settlement after the lease has ended changes no row.
_OWNED = "WHERE id = ? AND owner = ?"
MARK_RECEIVED = f"UPDATE delivery SET begun = 1 {_OWNED} AND available_at > ?"
ACK = f"DELETE FROM delivery {_OWNED}"
RENEW_LEASE = f"UPDATE delivery SET available_at = ? {_OWNED}"
REQUEUE = f"UPDATE delivery SET available_at = 0, owner = NULL, begun = 0 {_OWNED}"
REDELIVER = f"""
UPDATE delivery
SET available_at = 0, owner = NULL, begun = 0, attempt = attempt + 1, returns = returns + 1 {_OWNED}
"""
# A new row, so that the next attempt comes after the events that were sent meanwhile
ADD_DELAYED_COPY = f"""
INSERT INTO delivery (listener, event, attempt, available_at, first_failed_at)
SELECT listener, event, ?, ?, coalesce(first_failed_at, ?) FROM delivery {_OWNED}
"""
DEAD_LETTER_DELIVERY = f"""
INSERT INTO dead_letter (service, failure, {_DEAD_MESSAGE})
SELECT ?, ?, {_MESSAGE} FROM event WHERE id = (SELECT event FROM delivery {_OWNED})
"""
ADD_DEAD_LETTER = (
    f"INSERT INTO dead_letter (service, failure, {_DEAD_MESSAGE}) VALUES (?, ?, {_VALUES})"
)
REMOVE_DEAD_LETTER = "DELETE FROM dead_letter WHERE id = ?"
COUNT_DEAD_LETTERS = """
SELECT api, json_extract(failure, '$.listener'), count(*)
FROM dead_letter WHERE service = ? GROUP BY 1, 2
"""
READ_DEAD_LETTERS = f"""
SELECT id, failure, {_DEAD_MESSAGE}
FROM dead_letter WHERE service = ? AND id > ? ORDER BY id LIMIT 100
"""
