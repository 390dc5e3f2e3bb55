-- insert_credential --
INSERT INTO credential (id, org_id, name, service_type, fields, hosts, secret)
VALUES (%(id)s, %(org)s, %(name)s, %(service_type)s, %(fields)s, %(hosts)s, %(secret)s)
    ON CONFLICT (org_id, name) DO NOTHING
RETURNING id, name, service_type, fields, hosts, created_at, updated_at;

-- get_credential --
SELECT id, name, service_type, fields, hosts, created_at, updated_at
  FROM credential
 WHERE org_id = %(org)s AND id = %(id)s;

-- open_credential --
SELECT name, fields, hosts, secret, revision
  FROM credential
 WHERE org_id = %(org)s AND id = %(id)s;

-- update_credential --
-- Absent values stay. A secret is replaced only if it is still the one that the new one was made of.
UPDATE credential
   SET name = coalesce(%(name)s::text, name),
       service_type = coalesce(%(service_type)s::text, service_type),
       hosts = coalesce(%(hosts)s::text[], hosts),
       fields = coalesce(%(fields)s::text[], fields),
       secret = coalesce(%(secret)s::text, secret),
       revision = revision + 1,
       updated_at = now()
 WHERE org_id = %(org)s AND id = %(id)s
   AND (%(revision)s::integer IS NULL OR revision = %(revision)s::integer)
RETURNING id, name, service_type, fields, hosts, created_at, updated_at;

-- delete_credential --
DELETE FROM credential WHERE org_id = %(org)s AND id = %(id)s RETURNING id;

-- list_credentials --
-- Newest first; the cursor is the last id seen, as ids grow with time.
SELECT id, name, service_type, fields, hosts, created_at, updated_at
  FROM credential
 WHERE org_id = %(org)s AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
   AND (%(name)s::text IS NULL OR name = %(name)s::text)
 ORDER BY id DESC
 LIMIT %(limit)s;

-- known_credentials --
SELECT id FROM credential WHERE org_id = %(org)s AND id = ANY(%(ids)s::uuid[]);

-- sealing_keys --
-- The id of every key that something stored is sealed with.
SELECT DISTINCT split_part(secret, '.', 2) AS key FROM credential ORDER BY key;
