-- remember_delivery --
-- One that came before has its row already; several at once wait for the first.
INSERT INTO delivery (id, org_id, direction, webhook_id, key, run_id, status, is_test, redelivers, method, url, query,
                      headers, body, client_ip)
VALUES (%(id)s, %(org)s, 'in', %(webhook)s, %(key)s, %(run)s, %(status)s, %(is_test)s, %(redelivers)s, %(method)s, %(url)s,
        %(query)s, %(headers)s, %(body)s, %(client_ip)s)
    ON CONFLICT (webhook_id, key) WHERE direction = 'in' DO NOTHING
RETURNING id;

-- repeat_delivery --
-- What came before comes again. One that could start no run then may do it now.
UPDATE delivery
   SET repeats = repeats + 1,
       run_id = CASE WHEN status = 'dead' THEN %(run)s ELSE run_id END,
       status = 'accepted', error = NULL
  FROM (SELECT id, status AS was FROM delivery
         WHERE webhook_id = %(webhook)s AND key = %(key)s AND direction = 'in' FOR UPDATE) AS known
 WHERE delivery.id = known.id
RETURNING delivery.id, run_id, was;

-- bury_delivery --
-- A delivery that could start no run: it may be tried again by hand, or by whoever sends it again.
INSERT INTO delivery (id, org_id, direction, webhook_id, key, status, is_test, redelivers, method, url, query,
                      headers, body, client_ip, error, done_at)
VALUES (%(id)s, %(org)s, 'in', %(webhook)s, %(key)s, 'dead', %(is_test)s, %(redelivers)s, %(method)s, %(url)s,
        %(query)s, %(headers)s, %(body)s, %(client_ip)s, %(error)s, now())
    ON CONFLICT (webhook_id, key) WHERE direction = 'in'
    DO UPDATE SET error = excluded.error, repeats = delivery.repeats + 1 WHERE delivery.status = 'dead';

-- answered --
UPDATE delivery SET answer_status = %(status)s, answer_ms = %(ms)s, done_at = now()
 WHERE webhook_id = %(webhook)s AND key = %(key)s AND direction = 'in' AND answer_status IS NULL;

-- give_answer --
-- The first answer of a run counts, and only one that a webhook started has anybody to answer.
INSERT INTO run_answer (run_id, status, headers, body)
SELECT id, %(status)s, %(headers)s, %(body)s FROM run WHERE id = %(run)s AND trigger->>'type' = 'webhook'
    ON CONFLICT DO NOTHING;

-- get_answer --
SELECT status, headers, body FROM run_answer WHERE run_id = %(run)s;

-- list_deliveries --
SELECT delivery.id, webhook_id, run_id, delivery.status, is_test, redelivers, method, url, query, headers, client_ip, repeats,
       attempts, next_at, answer_status, answer_ms, delivery.error, at, done_at, run.status AS run_status,
       octet_length(body) AS body_bytes
  FROM delivery LEFT JOIN run ON run.id = run_id
 WHERE delivery.org_id = %(org)s AND webhook_id = %(webhook)s
   AND (%(before)s::uuid IS NULL OR delivery.id < %(before)s::uuid)
   AND (%(status)s::text IS NULL OR delivery.status = %(status)s::text)
 ORDER BY delivery.id DESC
 LIMIT %(limit)s;

-- get_delivery --
SELECT delivery.id, webhook_id, run_id, delivery.status, is_test, redelivers, method, url, query, headers, client_ip, repeats,
       attempts, next_at, answer_status, answer_ms, delivery.error, at, done_at, run.status AS run_status,
       octet_length(body) AS body_bytes, body
  FROM delivery LEFT JOIN run ON run.id = run_id
 WHERE delivery.org_id = %(org)s AND delivery.id = %(id)s
   AND (%(webhook)s::uuid IS NULL OR webhook_id = %(webhook)s::uuid)
   AND direction = %(direction)s;

-- heard --
-- What has arrived at a webhook's test address lately.
SELECT id, run_id, status, method, url, query, headers, body, client_ip, error, at
  FROM delivery
 WHERE webhook_id = %(webhook)s AND is_test AND at > %(since)s
 ORDER BY at, id
 LIMIT 100;

-- statistics --
-- What has come in at a webhook, and what became of it.
SELECT count(*) AS deliveries, coalesce(sum(repeats), 0)::bigint AS repeats,
       count(*) FILTER (WHERE delivery.status = 'dead') AS dead,
       count(*) FILTER (WHERE run.status = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE run.status = 'failed') AS failed,
       count(*) FILTER (WHERE run.status IN ('queued', 'running', 'waiting')) AS open,
       count(*) FILTER (WHERE at > now() - interval '1 day') AS last_day,
       count(*) FILTER (WHERE at > now() - interval '7 days') AS last_week,
       avg(answer_ms)::double precision AS answer_ms, max(at) AS last_at
  FROM delivery LEFT JOIN run ON run.id = run_id
 WHERE delivery.org_id = %(org)s AND webhook_id = %(webhook)s;

-- forget_deliveries --
DELETE FROM delivery
 WHERE ctid = ANY(ARRAY(SELECT ctid FROM delivery
                         WHERE at < now() - %(age)s::interval AND status <> 'pending' LIMIT %(batch)s))
RETURNING id;

-- forget_counts --
DELETE FROM delivery_count WHERE minute < now() - interval '10 minutes';

-- list_callbacks --
SELECT delivery.id, run_id, delivery.status, url, attempts, next_at, answer_status, answer_ms, delivery.error, at, done_at
  FROM delivery
 WHERE org_id = %(org)s AND direction = 'out'
   AND (%(run)s::uuid IS NULL OR run_id = %(run)s::uuid)
   AND (%(status)s::text IS NULL OR status = %(status)s::text)
   AND (%(before)s::timestamptz IS NULL OR at < %(before)s::timestamptz)
 ORDER BY at DESC
 LIMIT %(limit)s;

-- get_callback --
SELECT delivery.id, run_id, delivery.status, url, attempts, next_at, answer_status, answer_ms, delivery.error, at, done_at
  FROM delivery
 WHERE org_id = %(org)s AND direction = 'out' AND id = %(id)s;

-- again --
-- A callback that is over is sent once more.
UPDATE delivery SET status = 'pending', next_at = now(), attempts = 0, error = NULL, done_at = NULL
 WHERE org_id = %(org)s AND direction = 'out' AND id = %(id)s AND status <> 'pending'
RETURNING id;

-- take_callbacks --
-- Callbacks whose time has come, for whoever gets them first; whoever dies over one leaves it to be taken again.
UPDATE delivery
   SET attempts = attempts + 1, next_at = now() + %(lease)s::interval
  FROM (SELECT id FROM delivery WHERE status = 'pending' AND next_at <= now() ORDER BY next_at LIMIT %(most)s
           FOR UPDATE SKIP LOCKED) AS due
 WHERE delivery.id = due.id
RETURNING delivery.id, delivery.org_id, delivery.run_id, delivery.url, delivery.attempts, now() AS now,
          (SELECT callback->>'secret' FROM run WHERE run.id = delivery.run_id) AS secret;

-- sent --
UPDATE delivery
   SET status = %(status)s, next_at = %(wait)s::interval + now(), answer_status = %(answer_status)s,
       answer_ms = %(answer_ms)s, error = %(error)s, done_at = CASE WHEN %(status)s <> 'pending' THEN now() END
 WHERE id = %(id)s AND status = 'pending' AND attempts = %(attempts)s;

-- signing_secrets --
SELECT signing_secret, CASE WHEN signing_changed_at > now() - interval '1 day' THEN old_signing_secret END AS old
  FROM org WHERE id = %(org)s;

-- first_signing_secret --
UPDATE org SET signing_secret = %(sealed)s, signing_changed_at = now() WHERE id = %(org)s AND signing_secret IS NULL
RETURNING id;

-- change_signing_secret --
UPDATE org SET old_signing_secret = signing_secret, signing_secret = %(sealed)s, signing_changed_at = now()
 WHERE id = %(org)s
RETURNING id;

-- take_failed_run --
-- A run that has failed and of which nobody has been told.
DELETE FROM failed_run
 WHERE run_id = (SELECT run_id FROM failed_run ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING run_id;

-- failure --
-- What is told of a failed run, and which workflow runs for it: the one that its drawing names, or its organisation's.
SELECT run.id, run.org_id, run.workflow_id, workflow.name AS workflow_name, run.version, run.trigger, run.error, run.input,
       run.started_at, run.finished_at, org.error_workflow,
       coalesce(kept.flow_data->'settings'->>'error_workflow', kept.flow_data->'settings'->>'error_workflow_id') AS named
  FROM run
  JOIN org ON org.id = run.org_id
  JOIN workflow_version AS kept ON kept.org_id = run.org_id AND kept.version = run.version
  LEFT JOIN workflow ON workflow.id = run.workflow_id
 WHERE run.id = %(run)s;

-- error_workflow --
-- By its id or its name.
SELECT id, published_version FROM workflow
 WHERE org_id = %(org)s AND (id::text = %(ref)s::text OR name = %(ref)s::text)
 ORDER BY id::text = %(ref)s::text DESC, id
 LIMIT 1;

-- set_error_workflow --
UPDATE org SET error_workflow = %(workflow)s
 WHERE id = %(org)s
   AND (%(workflow)s::uuid IS NULL OR EXISTS (SELECT 1 FROM workflow WHERE org_id = %(org)s AND id = %(workflow)s::uuid))
RETURNING id;

-- get_error_workflow --
SELECT error_workflow FROM org WHERE id = %(org)s;
