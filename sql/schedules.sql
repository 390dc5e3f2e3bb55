-- live_schedule --
-- What a published drawing says of a schedule. Another timing begins anew.
INSERT INTO schedule (id, org_id, workflow_id, step, source, name, timing, input, anchor)
VALUES (%(id)s, %(org)s, %(workflow)s, %(step)s, 'drawing', %(name)s, %(timing)s, %(input)s, now())
    ON CONFLICT (workflow_id, step) WHERE source = 'drawing' DO UPDATE
   SET name = excluded.name, timing = excluded.timing, input = excluded.input, is_live = true, updated_at = now(),
       anchor = CASE WHEN schedule.timing::text = excluded.timing::text THEN schedule.anchor ELSE now() END,
       fired = CASE WHEN schedule.timing::text = excluded.timing::text THEN schedule.fired ELSE 0 END,
       next_at = CASE WHEN schedule.timing::text = excluded.timing::text THEN schedule.next_at END;

-- forget_schedules --
UPDATE schedule SET is_live = false, updated_at = now()
 WHERE workflow_id = %(workflow)s AND source = 'drawing' AND is_live AND NOT step = ANY(%(steps)s::text[]);

-- of_workflow --
-- The schedules of a workflow, and whether they may fire. Locked: a firing waits for what becomes of them.
SELECT schedule.id, timing, anchor, next_at, fired, now() AS now,
       is_live AND NOT is_paused AND published_version IS NOT NULL AS may_fire
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE workflow_id = %(workflow)s
 ORDER BY schedule.id
   FOR UPDATE OF schedule;

-- one_to_arm --
SELECT schedule.id, timing, anchor, NULL::timestamptz AS next_at, fired, now() AS now,
       is_live AND NOT is_paused AND published_version IS NOT NULL AS may_fire
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE schedule.org_id = %(org)s AND schedule.id = %(id)s
   FOR UPDATE OF schedule;

-- arm --
UPDATE schedule SET next_at = %(next)s, due_at = %(due)s WHERE id = %(id)s;

-- due --
-- Schedules with a firing to happen, the longest due first.
SELECT schedule.id, schedule.org_id, workflow_id
  FROM schedule
 WHERE due_at <= now()
 ORDER BY due_at
 LIMIT %(most)s;

-- take --
-- A schedule whose firing is due, for whoever gets it first.
SELECT schedule.id, workflow_id, step, timing, input, anchor, next_at, due_at, fired, published_version, now() AS now,
       (SELECT count(*) FROM firing JOIN run ON run.id = run_id
         WHERE schedule_id = schedule.id AND run.status IN ('queued', 'running', 'waiting')) AS open,
       (SELECT count(*) FROM firing WHERE schedule_id = schedule.id AND firing.status = 'waiting') AS waiting
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE schedule.id = %(id)s AND due_at <= now()
   FOR UPDATE OF schedule SKIP LOCKED;

-- insert_firing --
-- One per schedule and instant, whoever else thinks that it is due.
INSERT INTO firing (schedule_id, at, run_id, status, because, is_manual)
VALUES (%(schedule)s, %(at)s, %(run)s, %(status)s, %(because)s, %(is_manual)s)
    ON CONFLICT DO NOTHING
RETURNING at;

-- fired --
UPDATE schedule SET fired = fired + %(count)s, last_at = coalesce(%(last)s, last_at), next_at = %(next)s, due_at = %(due)s
 WHERE id = %(id)s;

-- supersede_runs --
-- The open runs of a schedule, which are to make room for a new one.
UPDATE run SET cancel_requested = true
  FROM firing
 WHERE firing.run_id = run.id AND schedule_id = %(schedule)s AND run.status IN ('queued', 'running', 'waiting')
RETURNING run.id, run.status, run.epoch;

-- next_waiting --
-- Firings whose turn has come: no run of their schedule is open any more.
SELECT DISTINCT ON (schedule_id) schedule_id, at, schedule.org_id, schedule.workflow_id
  FROM firing JOIN schedule ON schedule.id = schedule_id
 WHERE firing.status = 'waiting'
   AND NOT EXISTS (SELECT 1 FROM firing AS other JOIN run ON run.id = other.run_id
                    WHERE other.schedule_id = firing.schedule_id AND run.status IN ('queued', 'running', 'waiting'))
 ORDER BY schedule_id, at
 LIMIT %(most)s;

-- take_waiting --
-- The schedule is locked: its firings are started by one process at a time.
SELECT schedule.id, workflow_id, step, timing, input, published_version,
       is_live AND published_version IS NOT NULL AS may_fire,
       (SELECT count(*) FROM firing AS other JOIN run ON run.id = other.run_id
         WHERE other.schedule_id = schedule.id AND run.status IN ('queued', 'running', 'waiting')) AS open,
       (SELECT min(at) FROM firing AS other WHERE other.schedule_id = schedule.id AND other.status = 'waiting') AS at
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE schedule.id = %(id)s
   FOR UPDATE OF schedule SKIP LOCKED;

-- start_waiting --
UPDATE firing SET status = %(status)s, run_id = %(run)s, because = %(because)s, fired_at = clock_timestamp()
 WHERE schedule_id = %(schedule)s AND at = %(at)s AND status = 'waiting';

-- insert_schedule --
INSERT INTO schedule (id, org_id, workflow_id, step, source, name, timing, input, is_paused, anchor)
SELECT %(id)s, %(org)s, workflow.id, %(step)s, 'api', %(name)s, %(timing)s, %(input)s, %(is_paused)s, now()
  FROM workflow WHERE org_id = %(org)s AND id = %(workflow)s
RETURNING id;

-- change_schedule --
-- What a drawing says of its schedule is changed there; pausing is not said there.
UPDATE schedule
   SET name = coalesce(%(name)s::text, name), timing = coalesce(%(timing)s::json, timing),
       anchor = CASE WHEN %(timing)s::json IS NULL THEN anchor ELSE now() END,
       fired = CASE WHEN %(timing)s::json IS NULL THEN fired ELSE 0 END,
       input = CASE WHEN %(sets_input)s::boolean THEN %(input)s::json ELSE input END,
       is_paused = coalesce(%(is_paused)s::boolean, is_paused), updated_at = now()
 WHERE org_id = %(org)s AND id = %(id)s
   AND (source = 'api' OR (%(timing)s::json IS NULL AND %(name)s::text IS NULL AND NOT %(sets_input)s::boolean))
RETURNING id;

-- delete_schedule --
DELETE FROM schedule WHERE org_id = %(org)s AND id = %(id)s AND (source = 'api' OR NOT is_live)
RETURNING id;

-- get_schedule --
SELECT schedule.id, workflow_id, step, source, schedule.name, timing, input, is_paused,
       is_live AND published_version IS NOT NULL AS is_live, anchor, next_at, last_at, fired, now() AS now,
       schedule.created_at, schedule.updated_at
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE schedule.org_id = %(org)s AND schedule.id = %(id)s;

-- list_schedules --
SELECT schedule.id, workflow_id, step, source, schedule.name, timing, input, is_paused,
       is_live AND published_version IS NOT NULL AS is_live, anchor, next_at, last_at, fired, now() AS now,
       schedule.created_at, schedule.updated_at
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE schedule.org_id = %(org)s
   AND (%(workflow)s::uuid IS NULL OR workflow_id = %(workflow)s::uuid)
   AND (%(before)s::uuid IS NULL OR schedule.id < %(before)s::uuid)
 ORDER BY schedule.id DESC
 LIMIT %(limit)s;

-- to_trigger --
SELECT schedule.id, workflow_id, step, input, published_version, clock_timestamp() AS now
  FROM schedule JOIN workflow ON workflow.id = workflow_id
 WHERE schedule.org_id = %(org)s AND schedule.id = %(id)s;

-- list_firings --
SELECT firing.at, firing.run_id, firing.status, because, is_manual, fired_at, run.status AS run_status
  FROM firing LEFT JOIN run ON run.id = run_id
 WHERE schedule_id = %(id)s AND (%(before)s::timestamptz IS NULL OR at < %(before)s::timestamptz)
 ORDER BY at DESC
 LIMIT %(limit)s;

-- forget_firings --
DELETE FROM firing
 WHERE ctid = ANY(ARRAY(SELECT ctid FROM firing
                         WHERE fired_at < now() - %(age)s::interval AND status <> 'waiting' LIMIT %(batch)s))
RETURNING at;
