-- insert_question --
-- Asked again after a crash, a question keeps its row, and so its deadline.
INSERT INTO question (id, org_id, run_id, interrupt_id, step, question, deadline, status)
SELECT %(id)s, org_id, id, %(interrupt_id)s, %(step)s, %(question)s,
       coalesce(%(until)s::timestamptz, now() + %(seconds)s::float8 * interval '1 second'),
       CASE WHEN %(until)s::timestamptz <= now() THEN 'expired' ELSE 'open' END
  FROM run
 WHERE id = %(run)s
    ON CONFLICT (run_id, interrupt_id) DO NOTHING;

-- of_run --
-- Locked: an answer waits until the run's own next status is decided.
SELECT id, interrupt_id, step, question, status, answer, deadline
  FROM question
 WHERE run_id = %(run)s AND interrupt_id = ANY(%(interrupts)s::text[])
 ORDER BY asked_at, id
   FOR UPDATE;

-- asked_steps --
SELECT DISTINCT step FROM question WHERE run_id = %(run)s;

-- find_question --
-- One that is late has expired, whether or not a server has settled it yet. A pause is only meant by its id.
SELECT question.id, question.question,
       CASE WHEN question.status = 'open' AND deadline <= now() THEN 'expired' ELSE question.status END AS status
  FROM question
  JOIN run ON run.id = question.run_id
 WHERE run.org_id = %(org)s AND run.id = %(run)s
   AND (question.id = %(id)s::uuid
        OR %(id)s::uuid IS NULL AND question.question ->> 'pause' IS DISTINCT FROM 'true')
 ORDER BY question.status = 'open' AND coalesce(deadline > now(), true) DESC, asked_at DESC, question.id DESC
 LIMIT 2;

-- answer --
-- Compare and set: only an open question takes an answer, and only one.
UPDATE question SET status = 'answered', answer = %(answer)s, answered_at = now()
 WHERE id = %(id)s AND status = 'open' AND coalesce(deadline > now(), true)
RETURNING id;

-- expire --
-- Compare and set, like an answer. Nothing is waited for: servers look at once without doing it twice, and the
-- runs, which an ending locks before their questions, are locked here so that neither waits for the other.
UPDATE question SET status = 'expired'
  FROM (SELECT late.id
          FROM question AS late
          JOIN run ON run.id = late.run_id
         WHERE late.status = 'open' AND late.deadline <= now()
         ORDER BY late.deadline
         LIMIT %(batch)s
           FOR NO KEY UPDATE SKIP LOCKED) AS held
 WHERE question.id = held.id AND question.status = 'open'
RETURNING question.id, question.run_id;

-- requeue --
-- The second half of an answer or an expiry: the runs go on, with their attempts counted anew. A statement of its
-- own, as it must see a run that began to wait while the first one waited for its locks.
UPDATE run SET status = 'queued', attempt = 0
 WHERE id = ANY(%(runs)s::uuid[]) AND status = 'waiting'
RETURNING id;

-- wait --
-- Stop for answers, with the event that tells the questions, unless one has been answered already.
WITH held AS (
    UPDATE run
       SET status = 'waiting', lease_until = NULL, worker = NULL,
           next_seq = next_seq + cardinality(%(types)s::text[])
     WHERE id = %(run)s AND epoch = %(epoch)s AND status = 'running' AND next_seq = %(next)s
       AND NOT cancel_requested
    RETURNING org_id
)
INSERT INTO run_event (run_id, seq, org_id, type, data)
SELECT %(run)s, %(next)s::bigint + added.place - 1, held.org_id, added.type, added.data::json
  FROM held, unnest(%(types)s::text[], %(datas)s::text[]) WITH ORDINALITY AS added (type, data, place)
RETURNING seq, at;
