-- insert_file --
INSERT INTO file (id, org_id, name, media_type, size, sha256)
VALUES (%(id)s, %(org)s, %(name)s, %(media_type)s, %(size)s, %(sha256)s)
RETURNING id, name, media_type, size, encode(sha256, 'hex') AS sha256, created_at;

-- insert_piece --
INSERT INTO file_piece (org_id, file_id, number, bytes)
VALUES (%(org)s, %(id)s, %(number)s, %(bytes)s);

-- get_file --
SELECT id, name, media_type, size, encode(sha256, 'hex') AS sha256, created_at
  FROM file
 WHERE org_id = %(org)s AND id = %(id)s;

-- get_piece --
SELECT bytes FROM file_piece WHERE org_id = %(org)s AND file_id = %(id)s AND number = %(number)s;

-- list_files --
-- Newest first; the cursor is the last id seen, as ids grow with time.
SELECT id, name, media_type, size, encode(sha256, 'hex') AS sha256, created_at
  FROM file
 WHERE org_id = %(org)s AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
 ORDER BY id DESC
 LIMIT %(limit)s;

-- delete_file --
DELETE FROM file WHERE org_id = %(org)s AND id = %(id)s RETURNING id;
