-- insert_version --
INSERT INTO workflow_version (org_id, version, flow_data)
VALUES (%(org)s, %(version)s, %(flow_data)s)
    ON CONFLICT DO NOTHING;

-- get_version --
SELECT flow_data FROM workflow_version WHERE org_id = %(org)s AND version = %(version)s;

-- insert_workflow --
INSERT INTO workflow (id, org_id, name, description, flow_data, version)
VALUES (%(id)s, %(org)s, %(name)s, %(description)s, %(flow_data)s, %(version)s)
RETURNING id, name, description, flow_data, version, revision, created_at, updated_at;

-- get_workflow --
SELECT id, name, description, flow_data, version, revision, created_at, updated_at
  FROM workflow
 WHERE org_id = %(org)s AND id = %(id)s;

-- draft_version --
SELECT version FROM workflow WHERE org_id = %(org)s AND id = %(id)s;

-- update_workflow --
-- Absent values stay; with an expected revision only that one is replaced.
UPDATE workflow
   SET name = coalesce(%(name)s::text, name),
       description = CASE WHEN %(describe)s::boolean THEN %(description)s::text ELSE description END,
       flow_data = coalesce(%(flow_data)s::json, flow_data),
       version = coalesce(%(version)s::text, version),
       revision = revision + 1,
       updated_at = now()
 WHERE org_id = %(org)s AND id = %(id)s
   AND (%(revision)s::integer IS NULL OR revision = %(revision)s::integer)
RETURNING id, name, description, flow_data, version, revision, created_at, updated_at;

-- delete_workflow --
DELETE FROM workflow
 WHERE org_id = %(org)s AND id = %(id)s
   AND (%(revision)s::integer IS NULL OR revision = %(revision)s::integer)
RETURNING id;

-- list_workflows --
-- Newest first; the cursor is the last id seen, as ids grow with time.
SELECT id, name, description, version, revision, created_at, updated_at
  FROM workflow
 WHERE org_id = %(org)s AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
   AND (%(name)s::text IS NULL OR name = %(name)s::text)
 ORDER BY id DESC
 LIMIT %(limit)s;

-- find_by_name --
SELECT id, name, description, flow_data, version, revision, created_at, updated_at
  FROM workflow
 WHERE org_id = %(org)s AND name = %(name)s
 ORDER BY id
 LIMIT 1;

-- find_called --
-- A workflow by its id or its name; the id comes first, then the oldest of that name.
SELECT id, name, version, flow_data
  FROM workflow
 WHERE org_id = %(org)s AND (id::text = %(ref)s::text OR name = %(ref)s::text)
 ORDER BY id::text = %(ref)s::text DESC, id
 LIMIT 1;
