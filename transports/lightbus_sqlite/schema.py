"""The tables, and every statement on them.

An event is stored once. A *delivery* is its place in one listener's queue, and there is one for
each listener that wanted the event when it was sent. A delivery's ``available_at`` is 0 while it
waits, the end of its lease while a worker has it, and the end of its delay otherwise, in Unix time.
``begun`` is 1 from just before a listener receives the delivery until the delivery is settled.
"""

from __future__ import annotations

# "lbus" in ASCII, so that the file of another program is not written to.
APPLICATION_ID = 0x6C627573
VERSION = 4

# For those who look at events as they come. It is not kept for longer than they do.
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

# The streams of workers. One that was killed is in it until it expires.
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

# What makes a file of each older version one of the next.
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

# In one statement, so that another process is not seen half way through making the tables.
IDENTIFY = """
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
FROM pragma_application_id, pragma_user_version
"""

SET_FILE_ID = "INSERT INTO file (id) VALUES (?)"
FILE_ID = "SELECT id FROM file"

# A random id, so that a new listener never gets the id of a removed one. A worker of the removed
# listener may still run.
ADD_LISTENER = """
INSERT OR IGNORE INTO listener (id, service, name, api)
VALUES (random() & 0x7fffffffffff, ?, ?, ?)
"""
FIND_LISTENER = "SELECT id FROM listener WHERE service = ? AND name = ? AND api = ?"
ADD_WANTED = "INSERT OR IGNORE INTO wanted (api, event_name, listener) VALUES (?, ?, ?)"

SET_CONSUMER = """
INSERT OR REPLACE INTO consumer (id, listener, expires_at) VALUES (?, ?, ?)
"""
RENEW_CONSUMER = """
INSERT OR REPLACE INTO consumer (id, listener, expires_at)
SELECT ?, id, ? FROM listener WHERE id = ?
"""
REMOVE_CONSUMER = "DELETE FROM consumer WHERE id = ?"
REMOVE_EXPIRED_CONSUMERS = "DELETE FROM consumer WHERE expires_at <= ?"
LISTENER_QUEUES = """
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

WHO_WANTS = """
SELECT
    EXISTS (SELECT 1 FROM wanted WHERE api = ? AND event_name = ?),
    EXISTS (SELECT 1 FROM tail WHERE api = ?)
"""
# What a message is made of, where it is stored
_MESSAGE = "message_id, api, name, body, version, fired_at, service, traceparent"
_VALUES = "?, ?, ?, ?, ?, ?, ?, ?"
# A dead letter also names the service that gave it up.
_DEAD_MESSAGE = _MESSAGE.replace("service", "fired_by")

ADD_EVENT = f"INSERT INTO event ({_MESSAGE}) VALUES ({_VALUES})"
ADD_DELIVERIES = """
INSERT INTO delivery (listener, event)
SELECT listener, ? FROM wanted WHERE api = ? AND event_name = ?
"""

ADD_DELIVERY = "INSERT INTO delivery (listener, event, attempt) VALUES (?, ?, ?)"

# How much is kept for one who does not look: so many events, or fewer large ones.
MOST_TAILED = 1000
_IS_KEPT = f"FROM tail WHERE api = ? AND kept < {MOST_TAILED}"
ADD_TAILED_EVENT = f"""
INSERT INTO tailed_event (tail, {_MESSAGE}) SELECT id, {_VALUES} {_IS_KEPT}
"""
COUNT_TAILED_EVENT = f"""
UPDATE tail SET kept = kept + 1 + ? / 16384 WHERE id IN (SELECT id {_IS_KEPT})
"""
COUNT_FROM_NOTHING = "UPDATE tail SET kept = 0 WHERE id = ?"
REMOVE_EXPIRED_TAILS = "DELETE FROM tail WHERE expires_at <= ?"
REMOVE_EVENTS_OF_NO_TAIL = "DELETE FROM tailed_event WHERE tail NOT IN (SELECT id FROM tail)"
ADD_TAIL = "INSERT INTO tail (id, api, expires_at) VALUES (?, ?, ?)"
RENEW_TAIL = "UPDATE tail SET expires_at = ? WHERE id = ?"
REMOVE_TAIL = "DELETE FROM tail WHERE id = ?"
TAKE_TAILED_EVENTS = f"DELETE FROM tailed_event WHERE tail = ? RETURNING id, {_MESSAGE}"

STATS = """
SELECT
    coalesce(sum(available_at <= :now), 0),
    coalesce(sum(available_at > :now AND owner IS NULL), 0),
    coalesce(sum(available_at > :now AND owner IS NOT NULL), 0)
FROM delivery WHERE listener = :listener
"""
NEXT_AVAILABLE_AT = "SELECT min(available_at) FROM delivery WHERE listener = ?"

BRING_FORWARD = """
UPDATE delivery SET available_at = :at WHERE listener = :listener AND available_at > :beyond
"""
# A lease that ended counts as an attempt only if a listener had received the delivery.
FREE_WHAT_IS_DUE = """
UPDATE delivery
SET available_at = 0, owner = NULL, attempt = attempt + begun, returns = returns + begun, begun = 0
WHERE listener = ? AND available_at > 0 AND available_at <= ?
"""
TAKE = f"""
SELECT delivery.id, attempt, returns, first_failed_at, {_MESSAGE}
FROM delivery JOIN event ON event.id = delivery.event
WHERE listener = ? AND available_at = 0
ORDER BY delivery.id
LIMIT ?
"""
LEASE = "UPDATE delivery SET available_at = ?, owner = ?, begun = ? WHERE id = ?"
FIND = """
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
# Each lease has an owner of its own, so what is left of one that ended settles nothing.
_MINE = "WHERE id = ? AND owner = ?"
BEGIN = f"UPDATE delivery SET begun = 1 {_MINE} AND available_at > ?"
ACK = f"DELETE FROM delivery {_MINE}"
RENEW = f"UPDATE delivery SET available_at = ? {_MINE}"
REQUEUE = f"UPDATE delivery SET available_at = 0, owner = NULL, begun = 0 {_MINE}"
RETURN = f"""
UPDATE delivery
SET available_at = 0, owner = NULL, begun = 0, attempt = attempt + 1, returns = returns + 1 {_MINE}
"""
# A new row, for the next try stands behind what was sent meanwhile.
DELAY = f"""
INSERT INTO delivery (listener, event, attempt, available_at, first_failed_at)
SELECT listener, event, ?, ?, coalesce(first_failed_at, ?) FROM delivery {_MINE}
"""
ADD_DEAD_LETTER = f"""
INSERT INTO dead_letter (service, failure, {_DEAD_MESSAGE})
SELECT ?, ?, {_MESSAGE} FROM event WHERE id = (SELECT event FROM delivery {_MINE})
"""
BURY = f"INSERT INTO dead_letter (service, failure, {_DEAD_MESSAGE}) VALUES (?, ?, {_VALUES})"
DISCARD = "DELETE FROM dead_letter WHERE id = ?"
COUNT_DEAD_LETTERS = """
SELECT api, json_extract(failure, '$.listener'), count(*)
FROM dead_letter WHERE service = ? GROUP BY 1, 2
"""
DEAD_LETTERS = f"""
SELECT id, failure, {_DEAD_MESSAGE}
FROM dead_letter WHERE service = ? AND id > ? ORDER BY id LIMIT 100
"""
