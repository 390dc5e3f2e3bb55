-- Secrets of an organisation; `secret` is the vault's envelope around a JSON object of texts.
CREATE TABLE credential (
    id           uuid        PRIMARY KEY,
    org_id       uuid        NOT NULL REFERENCES org,
    name         text        NOT NULL CHECK (name <> ''),
    service_type text        NOT NULL CHECK (service_type <> ''),
    fields       text[]      NOT NULL,
    hosts        text[]      NOT NULL DEFAULT '{}',
    secret       text        NOT NULL,
    revision     integer     NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, name)
);

CREATE INDEX credential_by_org ON credential (org_id, id);
