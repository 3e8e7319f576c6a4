-- The tables as their first version had them, with an event that waits and a dead letter

CREATE TABLE file (id TEXT NOT NULL) STRICT;

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL,
    api TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    version INTEGER NOT NULL,
    fired_at TEXT NOT NULL,
    service TEXT NOT NULL
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
    first_failed_at TEXT
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
    failure TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letter_by_service ON dead_letter (service, id);

PRAGMA application_id = 1818391923;
PRAGMA user_version = 1;

INSERT INTO file (id) VALUES ('a-file');
INSERT INTO listener (service, name, api) VALUES ('shop', 'gather', 'auth');
INSERT INTO wanted (api, event_name, listener) VALUES ('auth', 'user_deleted', 1);
INSERT INTO event (message_id, api, name, body, version, fired_at, service)
VALUES ('waiting', 'auth', 'user_deleted', CAST('{"n":1}' AS BLOB), 1, '2026-01-02T00:00:00+00:00', 'a');
INSERT INTO delivery (listener, event) VALUES (1, 1);
INSERT INTO dead_letter
    (service, message_id, api, name, body, version, fired_at, fired_by, failure)
VALUES (
    'shop', 'dead', 'auth', 'user_deleted', CAST('{"n":2}' AS BLOB), 1,
    '2026-01-02T00:00:00+00:00', 'a',
    '{"error_type":"ValueError","error_message":"no","traceback":"","failed_at":"2026-01-02T00:00:00Z",'
    || '"first_failed_at":"2026-01-02T00:00:00Z","listener":"gather","attempt":1,'
    || '"service_name":"shop","process_name":"p","hostname":"h","pid":1}'
);
