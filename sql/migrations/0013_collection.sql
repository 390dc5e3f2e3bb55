-- Texts that are found by meaning or by words. Each collection has a table of its own for them: its vectors have
-- one dimension and one index, no index holds another organisation's rows, and dropping a collection is quick.
-- One table with a partial index per collection would have every query lock every index of it.
CREATE TABLE collection (
    id          uuid        PRIMARY KEY,
    org_id      uuid        NOT NULL REFERENCES org,
    name        text        NOT NULL CHECK (name <> ''),
    description text,
    model       text        NOT NULL,
    dimension   integer     NOT NULL CHECK (dimension BETWEEN 1 AND 16000),
    distance    text        NOT NULL CHECK (distance IN ('cosine', 'inner_product', 'l2')),
    language    regconfig   NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, name)
);

-- Of two who store a document at the same time, the one who began later is right.
CREATE SEQUENCE chunk_stamp;

CREATE FUNCTION chunks_of(collection uuid) RETURNS text LANGUAGE sql IMMUTABLE
RETURN 'chunk_' || replace(collection::text, '-', '');

-- Up to 2000 dimensions are kept whole, up to 4000 in half precision, as pgvector indexes no others; vectors of
-- more are compared one by one.
CREATE FUNCTION make_chunks(collection uuid, dimension integer, distance text, language regconfig) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    chunks text := chunks_of(collection);
    kind   text := CASE WHEN dimension BETWEEN 2001 AND 4000 THEN 'halfvec' ELSE 'vector' END;
    ops    text := CASE distance WHEN 'l2' THEN 'l2' WHEN 'inner_product' THEN 'ip' ELSE 'cosine' END;
BEGIN
    EXECUTE format(
        'CREATE TABLE %I (
             id          text        PRIMARY KEY,
             document_id uuid        NOT NULL,
             document    text        NOT NULL,
             content     text        NOT NULL,
             digest      bytea       NOT NULL,
             metadata    jsonb       NOT NULL,
             embedding   %s(%s)      NOT NULL,
             words       tsvector    NOT NULL GENERATED ALWAYS AS (to_tsvector(%L::regconfig, left(content, 100000))) STORED,
             stamp       bigint      NOT NULL,
             created_at  timestamptz NOT NULL DEFAULT now()
         )', chunks, kind, dimension, language);
    EXECUTE format('CREATE INDEX ON %I (document_id, id)', chunks);
    EXECUTE format('CREATE INDEX ON %I USING gin (words)', chunks);
    EXECUTE format('CREATE INDEX ON %I USING gin (metadata jsonb_path_ops)', chunks);
    IF dimension <= 4000 THEN
        EXECUTE format('CREATE INDEX ON %I USING hnsw (embedding %s_%s_ops)', chunks, kind, ops);
    END IF;
END $$;

CREATE FUNCTION drop_chunks(collection uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS %I', chunks_of(collection));
END $$;
