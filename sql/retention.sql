-- forget_events --
WITH due AS (
    SELECT id FROM run WHERE forget_events_at <= now() ORDER BY forget_events_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM run_event USING due WHERE run_id = due.id
)
UPDATE run SET forget_events_at = NULL, events_forgotten = true FROM due WHERE run.id = due.id
RETURNING run.id;

-- due_states --
-- Runs whose checkpoints are due; locked, so that no other process takes the same.
SELECT id, thread_id, session_id FROM run WHERE forget_state_at <= now() ORDER BY forget_state_at LIMIT %(batch)s
   FOR UPDATE SKIP LOCKED;

-- forget_threads --
-- The whole state of threads that one run alone had.
WITH checkpoints_gone AS (
    DELETE FROM checkpoints WHERE thread_id = ANY(%(threads)s::text[])
), writes_gone AS (
    DELETE FROM checkpoint_writes WHERE thread_id = ANY(%(threads)s::text[])
)
DELETE FROM checkpoint_blobs WHERE thread_id = ANY(%(threads)s::text[]);

-- forget_checkpoints --
-- What a run has stored in the thread of its session, but for the newest state of that.
WITH gone AS (
    DELETE FROM checkpoints AS old
     WHERE thread_id = %(thread)s AND metadata->>'fs_run_id' = %(run)s::text
       AND (checkpoint_ns <> '' OR checkpoint_id < (
            SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ''))
    RETURNING checkpoint_ns, checkpoint_id
)
DELETE FROM checkpoint_writes USING gone
 WHERE thread_id = %(thread)s AND checkpoint_writes.checkpoint_ns = gone.checkpoint_ns
   AND checkpoint_writes.checkpoint_id = gone.checkpoint_id;

-- forget_blobs --
-- Values of a thread that no checkpoint of it means any more. Nobody adds to them: its open run would.
DELETE FROM checkpoint_blobs AS blob
 WHERE thread_id = %(thread)s
   AND NOT EXISTS (SELECT 1 FROM run WHERE run.thread_id = %(thread)s AND run.active)
   AND NOT EXISTS (
        SELECT 1 FROM checkpoints AS held
         WHERE held.thread_id = %(thread)s AND held.checkpoint_ns = blob.checkpoint_ns
           AND held.checkpoint->'channel_versions'->>blob.channel = blob.version);

-- forgot_states --
WITH values_gone AS (
    DELETE FROM large_value WHERE run_id = ANY(%(runs)s::uuid[])
), seeds_gone AS (
    DELETE FROM run_seed WHERE run_id = ANY(%(runs)s::uuid[])
)
UPDATE run SET forget_state_at = NULL WHERE id = ANY(%(runs)s::uuid[]);

-- forget_runs --
DELETE FROM run WHERE id IN (
    SELECT id FROM run WHERE forget_at <= now() AND forget_state_at IS NULL ORDER BY forget_at LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED)
RETURNING id;

-- forget_keys --
DELETE FROM idempotency
 WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotency WHERE created_at < now() - %(age)s::interval LIMIT %(batch)s))
RETURNING key;
