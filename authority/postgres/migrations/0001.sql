-- What an authority keeps. Attributes and contents of the trail are CBOR, since text of PostgreSQL cannot have every character.

CREATE TABLE authority_state (
	one            boolean PRIMARY KEY DEFAULT true CHECK (one), -- there is one row, which every writer locks first
	list           bytea  NOT NULL,                              -- the random name of the list of revocations
	head           bigint NOT NULL DEFAULT 0,                    -- the number of the last revocation
	trail          bigint NOT NULL DEFAULT 0,                    -- the number of the last entry of the audit trail
	trail_hash     bytea  NOT NULL,                              -- and its hash
	credential_ttl bigint NOT NULL DEFAULT 0                     -- how long credentials are valid, in nanoseconds; 0: as the authority has it
);

CREATE TABLE authority_members (
	id                 bytea       PRIMARY KEY,
	attributes         bytea       NOT NULL,
	added_by           bytea       NOT NULL,
	added_at           timestamptz NOT NULL,
	pre_trusted        boolean     NOT NULL,
	blocked            boolean     NOT NULL,
	ticket             text        NOT NULL,
	last_seen          timestamptz,
	credential_expires timestamptz,
	audited_at         timestamptz,          -- when the trail last had an entry about its credentials
	issued             bigint      NOT NULL  -- credentials since
);

CREATE TABLE authority_tickets (
	hash       bytea       PRIMARY KEY, -- SHA-256 of the one-time code
	reference  text        NOT NULL,
	attributes bytea       NOT NULL,
	issued_by  bytea       NOT NULL,
	issued_at  timestamptz,
	expires_at timestamptz NOT NULL,
	uses       bigint      NOT NULL, -- that are left
	used       bigint      NOT NULL
);
CREATE INDEX authority_tickets_reference ON authority_tickets (reference);
CREATE INDEX authority_tickets_expires_at ON authority_tickets (expires_at);

CREATE TABLE authority_spent (
	hash      bytea       PRIMARY KEY,
	reference text        NOT NULL,
	outcome   text        NOT NULL,
	until     timestamptz NOT NULL -- when it is forgotten
);
CREATE INDEX authority_spent_until ON authority_spent (until);

CREATE TABLE authority_revocations (
	seq      bigint      PRIMARY KEY,
	subject  bytea       NOT NULL,
	at       timestamptz NOT NULL,
	restored boolean     NOT NULL,
	until    timestamptz NOT NULL
);
CREATE INDEX authority_revocations_subject ON authority_revocations (subject, seq);

CREATE TABLE authority_trail (
	seq      bigint PRIMARY KEY,
	previous bytea  NOT NULL, -- the hash of the entry before
	content  bytea  NOT NULL
);
