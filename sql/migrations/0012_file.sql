-- What people upload. The name is only shown: nothing of a file is ever stored or looked up under it.
CREATE TABLE file (
    id         uuid        PRIMARY KEY,
    org_id     uuid        NOT NULL REFERENCES org,
    name       text        NOT NULL CHECK (name <> ''),
    media_type text        NOT NULL,
    size       bigint      NOT NULL CHECK (size >= 0),
    sha256     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX file_of_org ON file (org_id, id);

-- In pieces, so that no process holds a file twice to store or to send it.
CREATE TABLE file_piece (
    org_id  uuid     NOT NULL,
    file_id uuid     NOT NULL REFERENCES file ON DELETE CASCADE,
    number  integer  NOT NULL,
    bytes   bytea    NOT NULL,
    PRIMARY KEY (file_id, number)
);

-- Pieces of PDFs and archives do not get smaller.
ALTER TABLE file_piece ALTER COLUMN bytes SET STORAGE EXTERNAL;
