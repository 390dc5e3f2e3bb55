-- Drawings are kept as `json`, not `jsonb`: what the editor sent comes back as it was, and it may hold \u0000.
CREATE TABLE workflow_version (
    org_id     uuid        NOT NULL REFERENCES org,
    version    text        NOT NULL,
    flow_data  json        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, version)
);

CREATE TABLE workflow (
    id          uuid        PRIMARY KEY,
    org_id      uuid        NOT NULL REFERENCES org,
    name        text        NOT NULL CHECK (name <> ''),
    description text,
    flow_data   json        NOT NULL,
    version     text        NOT NULL,
    revision    integer     NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (org_id, version) REFERENCES workflow_version
);

CREATE INDEX workflow_by_org ON workflow (org_id, id);
