-- store --
-- Events, checkpoints with the values of their channels, and what tasks have written: all or nothing, and only
-- for whoever holds the run. The tables are LangGraph's, and end up as its own saver would leave them. A row
-- without a number says that it is done, also when there was nothing to tell.
WITH held AS (
    UPDATE run SET next_seq = next_seq + cardinality(%(types)s::text[]), losses = 0
     WHERE id = %(run)s AND epoch = %(epoch)s AND status = 'running' AND next_seq = %(next)s
    RETURNING org_id
), told AS (
    INSERT INTO run_event (run_id, seq, org_id, type, data)
    SELECT %(run)s, %(next)s::bigint + added.place - 1, held.org_id, added.type, added.data::json
      FROM held, unnest(%(types)s::text[], %(datas)s::text[]) WITH ORDINALITY AS added (type, data, place)
    RETURNING seq, at
), point AS (
    INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    SELECT %(thread)s, added.ns, added.id, added.parent, added.checkpoint::jsonb, added.metadata::jsonb
      FROM held, unnest(%(point_nss)s::text[], %(point_ids)s::text[], %(point_parents)s::text[],
                        %(points)s::text[], %(point_metadata)s::text[])
                 AS added (ns, id, parent, checkpoint, metadata)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
        DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata
), blob AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(thread)s, added.*
      FROM held, unnest(%(blob_nss)s::text[], %(blob_channels)s::text[], %(blob_versions)s::text[],
                        %(blob_types)s::text[], %(blobs)s::bytea[]) AS added
        ON CONFLICT DO NOTHING
), write AS (
    SELECT added.*
      FROM held, unnest(%(write_nss)s::text[], %(write_points)s::text[], %(write_tasks)s::text[],
                        %(write_paths)s::text[], %(write_places)s::integer[], %(write_channels)s::text[],
                        %(write_types)s::text[], %(writes)s::bytea[], %(write_replaces)s::boolean[])
                 AS added (ns, point, task, path, place, channel, type, blob, replaces)
), kept AS (
    INSERT INTO checkpoint_writes
           (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(thread)s, ns, point, task, path, place, channel, type, blob FROM write WHERE NOT replaces
        ON CONFLICT DO NOTHING
), replaced AS (
    INSERT INTO checkpoint_writes
           (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(thread)s, ns, point, task, path, place, channel, type, blob FROM write WHERE replaces
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
        DO UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob
)
SELECT seq, at FROM told UNION ALL SELECT NULL, NULL FROM held;

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
