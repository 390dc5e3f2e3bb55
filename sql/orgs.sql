-- insert_org --
INSERT INTO org (id, name)
VALUES (%(id)s, %(name)s)
    ON CONFLICT DO NOTHING;

-- first_org --
SELECT id FROM org ORDER BY created_at, id LIMIT 1;

-- count_keys --
SELECT count(*) AS keys FROM api_key WHERE org_id = %(org)s AND revoked_at IS NULL;

-- insert_key --
INSERT INTO api_key (id, org_id, name, digest)
VALUES (%(id)s, %(org)s, %(name)s, %(digest)s)
    ON CONFLICT (digest) DO NOTHING;

-- find_key --
SELECT org_id FROM api_key WHERE digest = %(digest)s AND revoked_at IS NULL;
