-- insert_version --
INSERT INTO workflow_version (org_id, version, flow_data)
VALUES (%(org)s, %(version)s, %(flow_data)s)
    ON CONFLICT DO NOTHING;

-- get_version --
SELECT flow_data FROM workflow_version WHERE org_id = %(org)s AND version = %(version)s;

-- insert_workflow --
INSERT INTO workflow (id, org_id, name, description, flow_data, version)
VALUES (%(id)s, %(org)s, %(name)s, %(description)s, %(flow_data)s, %(version)s)
RETURNING id, name, description, flow_data, version, published_version, published_at, revision, created_at, updated_at;

-- remember_version --
-- The version that a workflow has now, or has again.
INSERT INTO workflow_history (workflow_id, version) VALUES (%(id)s, %(version)s)
    ON CONFLICT (workflow_id, version) DO UPDATE SET saved_at = excluded.saved_at;

-- list_versions --
SELECT history.version, saved_at, history.version = workflow.version AS is_draft,
       coalesce(history.version = published_version, false) AS is_published
  FROM workflow_history AS history JOIN workflow ON workflow.id = workflow_id
 WHERE org_id = %(org)s AND workflow_id = %(id)s
   AND (%(before)s::timestamptz IS NULL OR saved_at < %(before)s::timestamptz)
 ORDER BY saved_at DESC
 LIMIT %(limit)s;

-- publish --
-- Only a version that the workflow has had.
UPDATE workflow SET published_version = %(version)s, published_at = now()
 WHERE org_id = %(org)s AND id = %(id)s
   AND EXISTS (SELECT 1 FROM workflow_history WHERE workflow_id = %(id)s AND version = %(version)s)
RETURNING id;

-- unpublish --
UPDATE workflow SET published_version = NULL, published_at = NULL
 WHERE org_id = %(org)s AND id = %(id)s
RETURNING id;

-- pointers --
SELECT version, published_version FROM workflow WHERE org_id = %(org)s AND id = %(id)s;

-- get_workflow --
SELECT id, name, description, flow_data, version, published_version, published_at, revision, created_at, updated_at
  FROM workflow
 WHERE org_id = %(org)s AND id = %(id)s;

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
RETURNING id, name, description, flow_data, version, published_version, published_at, revision, created_at, updated_at;

-- delete_workflow --
DELETE FROM workflow
 WHERE org_id = %(org)s AND id = %(id)s
   AND (%(revision)s::integer IS NULL OR revision = %(revision)s::integer)
RETURNING id;

-- list_workflows --
-- Newest first; the cursor is the last id seen, as ids grow with time.
SELECT id, name, description, version, published_version, published_at, revision, created_at, updated_at
  FROM workflow
 WHERE org_id = %(org)s AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
   AND (%(name)s::text IS NULL OR name = %(name)s::text)
 ORDER BY id DESC
 LIMIT %(limit)s OFFSET %(skip)s;

-- find_by_name --
SELECT id, name, description, flow_data, version, published_version, published_at, revision, created_at, updated_at
  FROM workflow
 WHERE org_id = %(org)s AND name = %(name)s
 ORDER BY id
 LIMIT 1;

-- find_called --
-- A workflow by its id or its name, as it is published, or else as it is drawn now; the id comes first, then the
-- oldest of that name.
SELECT workflow.id, name, coalesce(published_version, workflow.version) AS version,
       coalesce(published.flow_data, workflow.flow_data) AS flow_data
  FROM workflow
  LEFT JOIN workflow_version AS published
    ON published.org_id = workflow.org_id AND published.version = published_version
 WHERE workflow.org_id = %(org)s AND (workflow.id::text = %(ref)s::text OR name = %(ref)s::text)
 ORDER BY workflow.id::text = %(ref)s::text DESC, workflow.id
 LIMIT 1;
