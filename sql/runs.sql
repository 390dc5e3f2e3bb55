-- insert_run --
-- A new run with its first event. It is claimed at once when asked for, unless its thread has an open run.
WITH thread AS (
    SELECT EXISTS (
        SELECT 1 FROM run WHERE thread_id = %(thread_id)s AND status IN ('queued', 'running', 'waiting')
    ) AS busy
), made AS (
    INSERT INTO run (id, org_id, workflow_id, version, thread_id, session_id, trigger, input, durability, limits,
                     forked_from, retention, callback, max_attempts, status, active, attempt, epoch, lease_until, worker, started_at, next_seq)
    SELECT %(id)s, %(org)s, %(workflow_id)s, %(version)s, %(thread_id)s, %(session_id)s, %(trigger)s, %(input)s,
           %(durability)s, %(limits)s, %(forked_from)s, %(retention)s, %(callback)s, %(max_attempts)s,
           CASE WHEN claim THEN 'running' ELSE 'queued' END, claim, claim::integer, claim::integer,
           CASE WHEN claim THEN now() + %(lease)s::interval END, CASE WHEN claim THEN %(worker)s END,
           CASE WHEN claim THEN now() END, 2
      FROM (SELECT %(claim)s::boolean AND NOT busy AS claim FROM thread) AS wish
    RETURNING *
), event AS (
    INSERT INTO run_event (run_id, seq, org_id, type, data)
    SELECT id, 1, org_id, 'run.created', %(created)s::json FROM made
    RETURNING at
)
SELECT made.*, event.at AS created_event_at FROM made, event;

-- supersede --
-- The open runs of a thread, which are to make room for a new one.
UPDATE run
   SET cancel_requested = true, rolls_back = %(rolls_back)s
 WHERE thread_id = %(thread_id)s AND status IN ('queued', 'running', 'waiting')
RETURNING id, status, epoch;

-- thread_run --
-- The open run of a thread that a new one would have to wait for.
SELECT id, status,
       EXISTS (SELECT FROM question
                WHERE run_id = run.id AND question.status = 'open'
                  AND question ->> 'pause' IS DISTINCT FROM 'true') AS asks
  FROM run
 WHERE thread_id = %(thread_id)s AND status IN ('queued', 'running', 'waiting')
 ORDER BY created_at, id
 LIMIT 1;

-- claim --
-- Take up a run that nobody executes: queued, or left by a process whose lease ran out. One of a thread waits until
-- those before it have ended.
UPDATE run
   SET status = 'running', active = true, epoch = epoch + 1, attempt = attempt + 1,
       losses = losses + (status = 'running' AND worker IS NOT NULL)::integer,
       lease_until = now() + %(lease)s::interval, worker = %(worker)s, started_at = coalesce(started_at, now())
 WHERE id = (
    SELECT id
      FROM run AS candidate
     WHERE id = %(id)s
       AND (status = 'queued' OR (status = 'running' AND lease_until < now()))
       AND losses + (status = 'running' AND worker IS NOT NULL)::integer < max_attempts
       AND NOT cancel_requested
       AND (active OR session_id IS NULL OR NOT EXISTS (
            SELECT 1 FROM run AS other
             WHERE other.thread_id = candidate.thread_id AND other.id <> candidate.id
               AND (other.active OR (other.status = 'queued' AND (other.created_at, other.id)
                                                               < (candidate.created_at, candidate.id)))))
       FOR UPDATE SKIP LOCKED)
RETURNING *;

-- defer_left --
-- A job for each run that could be claimed and has none: its process died, or the job got lost.
SELECT defer_run(id)
  FROM (SELECT id
          FROM run AS candidate
         WHERE (status = 'queued' OR (status = 'running' AND lease_until < now()))
           AND losses + (status = 'running' AND worker IS NOT NULL)::integer < max_attempts
           AND NOT cancel_requested
           AND (active OR session_id IS NULL OR NOT EXISTS (
                SELECT 1 FROM run AS other
                 WHERE other.thread_id = candidate.thread_id AND other.id <> candidate.id
                   AND (other.active OR (other.status = 'queued' AND (other.created_at, other.id)
                                                                   < (candidate.created_at, candidate.id)))))
           AND NOT EXISTS (
                SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND args->>'run' = candidate.id::text)
         ORDER BY created_at, id
         LIMIT 100
           FOR UPDATE SKIP LOCKED) AS left_behind;

-- defer --
SELECT defer_run(%(run)s);

-- forget_jobs --
-- Jobs that a dead worker had, or whose end a live one could not report: what became of their runs is in the runs.
DELETE FROM procrastinate_jobs AS job
 WHERE status = 'doing'
   AND (NOT EXISTS (SELECT 1 FROM procrastinate_workers AS worker
                     WHERE worker.id = job.worker_id AND last_heartbeat > now() - interval '1 minute')
        OR EXISTS (SELECT 1 FROM run WHERE run.id::text = job.args->>'run'
                                       AND finished_at < now() - interval '1 minute'));

-- abandoned --
-- Runs that no claim may take up again, with nobody at work on them: processes died under them too often, or they are
-- to be cancelled.
SELECT id, epoch, cancel_requested, losses + 1 AS losses
  FROM run
 WHERE (status = 'running' AND lease_until < now()
        AND (cancel_requested OR (worker IS NOT NULL AND losses + 1 >= max_attempts)))
    OR (status IN ('queued', 'waiting') AND cancel_requested)
 LIMIT 100;

-- extend_leases --
-- Whatever changes several runs locks them in the order of their ids, so that no two wait for each other.
UPDATE run
   SET lease_until = now() + %(lease)s::interval
  FROM (SELECT run.id
          FROM run
          JOIN unnest(%(ids)s::uuid[], %(epochs)s::integer[]) AS mine (id, epoch)
            ON run.id = mine.id AND run.epoch = mine.epoch
         WHERE run.status = 'running'
         ORDER BY run.id
           FOR NO KEY UPDATE OF run) AS held
 WHERE run.id = held.id
RETURNING run.id, run.cancel_requested;

-- append_events --
-- Fenced by epoch and by the expected number, so that a repeated write after a lost answer adds nothing.
WITH held AS (
    UPDATE run SET next_seq = next_seq + cardinality(%(types)s::text[])
     WHERE id = %(run)s AND epoch = %(epoch)s AND status = 'running' AND next_seq = %(next)s
    RETURNING org_id
)
INSERT INTO run_event (run_id, seq, org_id, type, data)
SELECT %(run)s, %(next)s::bigint + added.place - 1, held.org_id, added.type, added.data::json
  FROM held, unnest(%(types)s::text[], %(datas)s::text[]) WITH ORDINALITY AS added (type, data, place)
RETURNING seq, at;

-- append_many --
-- The same for several runs at once: one commit for all of them, and no row for those that are not held.
WITH held AS (
    UPDATE run SET next_seq = run.next_seq + locked.added
      FROM (SELECT run.id, wanted.added
              FROM run
              JOIN unnest(%(runs)s::uuid[], %(epochs)s::integer[], %(nexts)s::bigint[], %(counts)s::integer[])
                   AS wanted (id, epoch, next, added)
                ON run.id = wanted.id AND run.epoch = wanted.epoch AND run.next_seq = wanted.next
             WHERE run.status = 'running'
             ORDER BY run.id
               FOR NO KEY UPDATE OF run) AS locked
     WHERE run.id = locked.id
    RETURNING run.id, run.org_id
)
INSERT INTO run_event (run_id, seq, org_id, type, data)
SELECT held.id, added.seq, held.org_id, added.type, added.data::json
  FROM unnest(%(of)s::uuid[], %(seqs)s::bigint[], %(types)s::text[], %(datas)s::text[]) AS added (id, seq, type, data)
  JOIN held ON held.id = added.id
RETURNING run_id, seq, at;

-- position --
SELECT epoch, status, next_seq, cancel_requested FROM run WHERE id = %(run)s;

-- finish --
-- The one change to a final status, with the events that lead up to it.
WITH held AS (
    UPDATE run
       SET status = %(status)s, output = %(output)s, error = %(error)s, usage = %(usage)s,
           had_errors = %(had_errors)s, active = false, lease_until = NULL, finished_at = now(),
           next_seq = next_seq + cardinality(%(types)s::text[])
     WHERE id = %(run)s AND epoch = %(epoch)s AND status = 'running' AND next_seq = %(next)s
    RETURNING org_id
), closed AS (
    UPDATE question SET status = 'closed'
     WHERE run_id = %(run)s AND status = 'open' AND EXISTS (SELECT 1 FROM held)
)
INSERT INTO run_event (run_id, seq, org_id, type, data)
SELECT %(run)s, %(next)s::bigint + added.place - 1, held.org_id, added.type, added.data::json
  FROM held, unnest(%(types)s::text[], %(datas)s::text[]) WITH ORDINALITY AS added (type, data, place)
RETURNING seq, at;

-- end_unheld --
-- A final status for a run that nobody executes, with its last events, if it is still as it was seen.
WITH ended AS (
    UPDATE run
       SET status = %(status)s, error = %(error)s, active = false, lease_until = NULL, finished_at = now(),
           epoch = epoch + 1, next_seq = next_seq + cardinality(%(types)s::text[])
     WHERE id = %(id)s AND epoch = %(epoch)s AND next_seq = %(next)s
       AND (status IN ('queued', 'waiting') OR (status = 'running' AND lease_until < now()))
    RETURNING id, org_id
), closed AS (
    UPDATE question SET status = 'closed'
     WHERE run_id = %(id)s AND status = 'open' AND EXISTS (SELECT 1 FROM ended)
)
INSERT INTO run_event (run_id, seq, org_id, type, data)
SELECT ended.id, %(next)s::bigint + added.place - 1, ended.org_id, added.type, added.data::json
  FROM ended, unnest(%(types)s::text[], %(datas)s::text[]) WITH ORDINALITY AS added (type, data, place)
RETURNING seq, at;

-- release --
-- Hand a run back unfinished; the attempt does not count.
UPDATE run
   SET status = 'queued', attempt = greatest(attempt - 1, 0), lease_until = NULL, worker = NULL
 WHERE id = %(run)s AND epoch = %(epoch)s AND status = 'running';

-- uncount --
-- The attempt of a run that could not go on although nobody died. Its lease runs out before it is tried again.
UPDATE run SET attempt = greatest(attempt - 1, 0), worker = NULL
 WHERE id = %(run)s AND epoch = %(epoch)s AND status = 'running';

-- wish_cancel --
UPDATE run
   SET cancel_requested = true
 WHERE org_id = %(org)s AND id = %(id)s AND status IN ('queued', 'running', 'waiting')
RETURNING status, epoch;

-- get_run --
SELECT run.id, workflow_id, version, status, trigger, input, output, error, session_id, attempt, had_errors,
       usage, forked_from, events_forgotten, created_at, started_at, finished_at, next_seq - 1 AS last_seq,
       (SELECT coalesce(json_agg(json_build_object(
                   'id', question.id, 'step', step, 'question', question, 'deadline', deadline) ORDER BY asked_at), '[]')
          FROM question WHERE run_id = run.id AND question.status = 'open') AS questions
  FROM run
 WHERE run.org_id = %(org)s AND run.id = %(id)s;

-- list_runs --
SELECT run.id, workflow_id, version, status, trigger, input, output, error, session_id, attempt, had_errors,
       usage, forked_from, events_forgotten, created_at, started_at, finished_at, next_seq - 1 AS last_seq,
       (SELECT coalesce(json_agg(json_build_object(
                   'id', question.id, 'step', step, 'question', question, 'deadline', deadline) ORDER BY asked_at), '[]')
          FROM question WHERE run_id = run.id AND question.status = 'open') AS questions
  FROM run
 WHERE org_id = %(org)s
   AND (%(workflow_id)s::uuid IS NULL OR workflow_id = %(workflow_id)s::uuid)
   AND (%(status)s::text IS NULL OR status = %(status)s::text)
   AND (%(session_id)s::text IS NULL OR session_id = %(session_id)s::text)
   AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
 ORDER BY id DESC
 LIMIT %(limit)s;

-- read_events --
SELECT seq, type, at, data
  FROM run_event
 WHERE run_id = %(run)s AND seq > %(after)s
 ORDER BY seq
 LIMIT %(limit)s;

-- past_events --
-- What earlier attempts of a run have told already.
SELECT type, data->>'step' AS step, data->'within' AS within, data->'usage' AS usage,
       (data->>'item')::integer AS item, data->>'status' AS status,
       coalesce((data->>'will_retry')::boolean, false) AS will_retry,
       coalesce((data->>'goes_on')::boolean, false) AS goes_on
  FROM run_event
 WHERE run_id = %(run)s
   AND type IN ('step.started', 'step.finished', 'step.skipped', 'step.failed', 'item.finished')
 ORDER BY seq;

-- seconds_spent --
-- How long a run has been executing: from each start to the last event before the next one.
SELECT coalesce(sum(extract(epoch FROM ended - began)), 0)::double precision AS seconds
  FROM (SELECT min(at) AS began, max(at) AS ended
          FROM (SELECT at, count(*) FILTER (WHERE type = 'run.started') OVER (ORDER BY seq) AS attempt
                  FROM run_event WHERE run_id = %(run)s) AS event
         WHERE attempt > 0
         GROUP BY attempt) AS stretch;
