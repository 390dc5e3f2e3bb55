-- list_checkpoints --
-- The checkpoints of a run, oldest first; those of nested graphs belong to the steps that they are in.
SELECT checkpoint_id AS id, parent_checkpoint_id AS parent, checkpoint->>'ts' AS at,
       (metadata->>'step')::integer AS superstep, checkpoint->'channel_versions' AS versions
  FROM checkpoints
 WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND metadata->>'fs_run_id' = %(run)s::text
   AND (%(after)s::text IS NULL OR checkpoint_id > %(after)s)
 ORDER BY checkpoint_id
 LIMIT %(limit)s;

-- checkpoint_versions --
SELECT checkpoint->'channel_versions' AS versions FROM checkpoints
 WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = %(id)s;

-- run_thread --
SELECT thread_id, version, workflow_id, trigger, input, session_id FROM run WHERE org_id = %(org)s AND id = %(run)s;

-- put_seed --
INSERT INTO run_seed (run_id, org_id, type, state) VALUES (%(run)s, %(org)s, %(type)s, %(state)s);

-- get_seed --
SELECT type, state FROM run_seed WHERE run_id = %(run)s;

-- copy_large --
INSERT INTO large_value (run_id, hash, value)
SELECT %(run)s, hash, value FROM large_value WHERE run_id = %(from)s;
