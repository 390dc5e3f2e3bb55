-- put_large --
INSERT INTO large_value (run_id, hash, value)
SELECT %(run)s, added.hash, added.value
  FROM unnest(%(hashes)s::text[], %(values)s::bytea[]) AS added (hash, value)
    ON CONFLICT DO NOTHING;

-- get_large --
SELECT hash, value FROM large_value WHERE run_id = %(run)s AND hash = ANY(%(hashes)s::text[]);
