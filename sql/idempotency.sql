-- remember_key --
-- Waits for another request with the same key to be decided; no row when that one has been carried out.
INSERT INTO idempotency (org_id, operation, key, body_hash, run_id)
VALUES (%(org)s, %(operation)s, %(key)s, %(body_hash)s, %(run)s)
    ON CONFLICT DO NOTHING
RETURNING run_id;

-- find_by_key --
SELECT body_hash, run_id FROM idempotency
 WHERE org_id = %(org)s AND operation = %(operation)s AND key = %(key)s;
