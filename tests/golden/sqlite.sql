CREATE TABLE consumer (
    id TEXT PRIMARY KEY,
    listener INTEGER NOT NULL,
    expires_at REAL NOT NULL
) STRICT;

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

CREATE INDEX delivery_by_event ON delivery (event);

CREATE INDEX delivery_by_time ON delivery (listener, available_at, id);

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

CREATE TRIGGER event_without_deliveries AFTER DELETE ON delivery
WHEN NOT EXISTS (SELECT 1 FROM delivery WHERE event = OLD.event)
BEGIN
    DELETE FROM event WHERE id = OLD.event;
END;

CREATE TABLE file (id TEXT NOT NULL) STRICT;

CREATE TABLE listener (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    api TEXT NOT NULL,
    UNIQUE (service, name, api)
) STRICT;

CREATE TABLE sqlite_sequence(name,seq);

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

CREATE TABLE wanted (
    api TEXT NOT NULL,
    event_name TEXT NOT NULL,
    listener INTEGER NOT NULL REFERENCES listener (id),
    PRIMARY KEY (api, event_name, listener)
) STRICT, WITHOUT ROWID;

-- application_id = 1818391923, user_version = 4, journal_mode = wal
