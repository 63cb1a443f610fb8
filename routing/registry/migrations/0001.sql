-- What the relays of a fleet know together (docs/protocol/08-groups.md).

CREATE TABLE relay_nodes (
	id          text        PRIMARY KEY, -- another one for each process
	address     text        NOT NULL,
	alive_until timestamptz NOT NULL     -- it renews this; afterwards it and its members are left out
);

CREATE TABLE relay_names (
	name    text        PRIMARY KEY,
	owner   bytea       NOT NULL,
	rule    smallint    NOT NULL,
	share   text        NOT NULL,
	claimed timestamptz NOT NULL
);

CREATE TABLE relay_members (
	name        text        NOT NULL,
	relay       text        NOT NULL,
	member      bytea       NOT NULL,
	identity    bytea       NOT NULL,
	priority    bigint      NOT NULL,
	down        boolean     NOT NULL,
	connections bigint      NOT NULL,
	reports     boolean     NOT NULL,
	since       timestamptz NOT NULL,
	PRIMARY KEY (name, relay, member, identity)
);
CREATE INDEX relay_members_relay ON relay_members (relay);
