-- known_chunks --
SELECT id, digest FROM {chunks} WHERE id = ANY(%(ids)s::text[]);

-- next_stamp --
SELECT nextval('chunk_stamp') AS stamp;

-- put_chunks --
-- In the order of their ids, so that two who write the same ones wait for each other and no more.
INSERT INTO {chunks} AS old (id, document_id, document, content, digest, metadata, embedding, stamp)
SELECT id, document_id::uuid, document, content, digest, metadata::jsonb, embedding::{kind}, %(stamp)s
  FROM unnest(%(ids)s::text[], %(document_ids)s::text[], %(documents)s::text[], %(contents)s::text[],
              %(digests)s::bytea[], %(metadata)s::text[], %(embeddings)s::text[])
       AS new (id, document_id, document, content, digest, metadata, embedding)
 ORDER BY id
    ON CONFLICT (id) DO UPDATE
   SET document_id = excluded.document_id, document = excluded.document, content = excluded.content,
       digest = excluded.digest, metadata = excluded.metadata, embedding = excluded.embedding,
       stamp = greatest(old.stamp, excluded.stamp)
RETURNING xmax = 0 AS is_new;

-- keep_chunks --
-- Of contents that are the same as before: what is said of them now, and whether that is anything new.
WITH held AS (
    SELECT old.id, new.document_id::uuid, new.document, new.metadata::jsonb,
           (old.document, old.metadata) IS DISTINCT FROM (new.document, new.metadata::jsonb) AS differs
      FROM {chunks} AS old
      JOIN unnest(%(ids)s::text[], %(document_ids)s::text[], %(documents)s::text[], %(metadata)s::text[])
           AS new (id, document_id, document, metadata) USING (id)
     ORDER BY old.id
       FOR UPDATE OF old
)
UPDATE {chunks} AS old
   SET document_id = held.document_id, document = held.document, metadata = held.metadata,
       stamp = greatest(old.stamp, %(stamp)s)
  FROM held
 WHERE old.id = held.id
RETURNING old.id, held.differs;

-- remove_older --
-- What documents held before, and do not any more: of them stays what was stored by whoever began last.
DELETE FROM {chunks} AS old
 USING (SELECT document_id, greatest(max(stamp), %(stamp)s) AS newest
          FROM {chunks}
         WHERE document_id = ANY(%(document_ids)s::text[]::uuid[])
         GROUP BY document_id) AS held
 WHERE old.document_id = held.document_id AND old.stamp < held.newest;

-- remove_documents --
DELETE FROM {chunks} WHERE document_id = ANY(%(document_ids)s::text[]::uuid[]);

-- remove_chunks --
DELETE FROM {chunks} WHERE id = ANY(%(ids)s::text[]);

-- remove_where --
DELETE FROM {chunks} WHERE {where};

-- remove_all --
DELETE FROM {chunks};

-- get_chunks --
SELECT id, document_id, document, content, metadata, NULL::float8 AS score
  FROM {chunks}
 WHERE id = ANY(%(ids)s::text[]);

-- count_chunks --
SELECT count(*) AS chunks, count(DISTINCT document_id) AS documents FROM {chunks};

-- list_documents --
SELECT document_id AS id, min(document) AS name, count(*) AS chunks, min(created_at) AS created_at
  FROM {chunks}
 WHERE %(after)s::uuid IS NULL OR document_id > %(after)s::uuid
 GROUP BY document_id
 ORDER BY document_id
 LIMIT %(limit)s;

-- document_chunks --
SELECT id, document_id, document, content, metadata, NULL::float8 AS score
  FROM {chunks}
 WHERE document_id = %(document)s
 ORDER BY created_at, id
 LIMIT %(limit)s;

-- careful --
-- An index gives its rows one after the other until enough fit the filter; nobody waits for longer than `timeout`.
SELECT set_config('hnsw.iterative_scan', 'strict_order', true),
       set_config('hnsw.ef_search', %(width)s::integer::text, true),
       set_config('hnsw.max_scan_tuples', '100000', true),
       set_config('enable_indexscan', %(index)s::boolean::text, true),
       set_config('statement_timeout', %(timeout)s::integer::text, true);

-- nearest --
SELECT id, document_id, document, content, metadata, embedding {distance} %(vector)s::text::{kind} AS score
  FROM {chunks}
 WHERE {where}
 ORDER BY embedding {distance} %(vector)s::text::{kind}
 LIMIT %(k)s;

-- sayers --
-- Any word of the question is enough; a text that has more of them, or rarer ones, ranks higher.
WITH asked AS (
    SELECT string_agg('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery AS any_of
      FROM unnest(to_tsvector(%(language)s::text::regconfig, %(text)s::text))
)
SELECT id, document_id, document, content, metadata, ts_rank(words, any_of, 1 | 32)::float8 AS score
  FROM {chunks}, asked
 WHERE words @@ any_of AND {where}
 ORDER BY score DESC, id
 LIMIT %(k)s;

-- likeness --
-- How alike what was found is, each with each, for a choice of different ones.
SELECT a.id AS one, b.id AS other, 1 - (a.embedding <=> b.embedding) AS likeness
  FROM {chunks} AS a
  JOIN {chunks} AS b ON a.id < b.id
 WHERE a.id = ANY(%(ids)s::text[]) AND b.id = ANY(%(ids)s::text[]);
