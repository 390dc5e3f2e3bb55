-- census --
-- Ended runs are not counted: there may be millions. In the queue is a run with a job, waiting for a worker or, where
-- one has it, for room; a run without a job waits for another one of its session. Jobs are numbered as they come.
WITH open AS (
    SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
           count(*) FILTER (WHERE status = 'running') AS running,
           count(*) FILTER (WHERE status = 'waiting') AS waiting
      FROM run
     WHERE status IN ('queued', 'running', 'waiting')
), queue AS (
    SELECT count(DISTINCT run.id) AS length, min(job.id) AS first_job
      FROM run
      JOIN procrastinate_jobs AS job ON job.args->>'run' = run.id::text AND job.status IN ('todo', 'doing')
     WHERE run.status = 'queued'
)
SELECT queued, running, waiting, length AS queue_length,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - min(at))
                   FROM procrastinate_events
                  WHERE job_id = first_job AND type = 'deferred'), 0)::double precision AS oldest_seconds,
       pg_notification_queue_usage() AS notifications
  FROM open, queue;
