CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE org (
    id         uuid        PRIMARY KEY,
    name       text        NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A key is a random 256-bit secret, so its plain SHA-256 is enough and can be looked up.
CREATE TABLE api_key (
    id         uuid        PRIMARY KEY,
    org_id     uuid        NOT NULL REFERENCES org,
    name       text        NOT NULL CHECK (name <> ''),
    digest     bytea       NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
