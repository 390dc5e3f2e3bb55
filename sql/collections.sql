-- insert_collection --
INSERT INTO collection (id, org_id, name, description, model, dimension, distance, language)
VALUES (%(id)s, %(org)s, %(name)s, %(description)s, %(model)s, %(dimension)s, %(distance)s,
        %(language)s::text::regconfig)
    ON CONFLICT (org_id, name) DO NOTHING
RETURNING id, name, description, model, dimension, distance, language::text, created_at, updated_at;

-- make_chunks --
SELECT make_chunks(%(id)s, %(dimension)s, %(distance)s, %(language)s::text::regconfig);

-- get_collection --
SELECT id, name, description, model, dimension, distance, language::text, created_at, updated_at
  FROM collection
 WHERE org_id = %(org)s AND id = %(id)s;

-- find_collection --
SELECT id, name, description, model, dimension, distance, language::text, created_at, updated_at
  FROM collection
 WHERE org_id = %(org)s AND name = %(name)s;

-- list_collections --
-- Newest first; the cursor is the last id seen, as ids grow with time.
SELECT id, name, description, model, dimension, distance, language::text, created_at, updated_at
  FROM collection
 WHERE org_id = %(org)s AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
 ORDER BY id DESC
 LIMIT %(limit)s;

-- delete_collection --
DELETE FROM collection WHERE org_id = %(org)s AND id = %(id)s RETURNING id;

-- drop_chunks --
SELECT drop_chunks(%(id)s);

-- touch_collection --
UPDATE collection SET updated_at = now() WHERE org_id = %(org)s AND id = %(id)s;

-- rename_collection --
UPDATE collection
   SET name = %(to)s, updated_at = now()
 WHERE org_id = %(org)s AND name = %(name)s
RETURNING id, name, description, model, dimension, distance, language::text, created_at, updated_at;
