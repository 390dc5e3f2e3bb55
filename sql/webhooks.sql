-- draft_hook --
-- What a drawing that is being edited says of a webhook. A path that another webhook has is not taken.
INSERT INTO webhook (id, org_id, workflow_id, step, source, draft, test_path, made_path)
SELECT %(id)s, %(org)s, %(workflow)s, %(step)s, 'drawing', %(hook)s, path.free, %(made_path)s
  FROM (SELECT CASE WHEN EXISTS (
                   SELECT 1 FROM webhook AS other
                    WHERE (other.test_path = %(path)s::text OR other.path = %(path)s::text)
                      AND (other.workflow_id, other.step) IS DISTINCT FROM (%(workflow)s::uuid, %(step)s::text))
               THEN NULL ELSE coalesce(%(path)s::text, %(made_path)s::text) END AS free) AS path
    ON CONFLICT (workflow_id, step) WHERE source = 'drawing' DO UPDATE
   SET draft = excluded.draft, updated_at = now(),
       test_path = CASE WHEN %(path)s::text IS NULL THEN webhook.made_path ELSE excluded.test_path END
RETURNING id, test_path;

-- forget_drafts --
UPDATE webhook SET draft = NULL, test_path = NULL, updated_at = now()
 WHERE workflow_id = %(workflow)s AND source = 'drawing' AND draft IS NOT NULL AND NOT step = ANY(%(steps)s::text[]);

-- live_hook --
INSERT INTO webhook (id, org_id, workflow_id, step, source, live, path, made_path)
VALUES (%(id)s, %(org)s, %(workflow)s, %(step)s, 'drawing', %(hook)s, coalesce(%(path)s::text, %(made_path)s::text), %(made_path)s)
    ON CONFLICT (workflow_id, step) WHERE source = 'drawing' DO UPDATE
   SET live = excluded.live, path = coalesce(%(path)s::text, webhook.made_path), updated_at = now()
RETURNING id, path;

-- taken_path --
-- Whether another webhook answers at a path, or is to.
SELECT EXISTS (
    SELECT 1 FROM webhook
     WHERE (path = %(path)s::text OR test_path = %(path)s::text)
       AND (workflow_id, step) IS DISTINCT FROM (%(workflow)s::uuid, %(step)s::text)) AS taken;

-- forget_live --
UPDATE webhook SET live = NULL, path = NULL, updated_at = now()
 WHERE workflow_id = %(workflow)s AND source = 'drawing' AND live IS NOT NULL AND NOT step = ANY(%(steps)s::text[]);

-- pathless_drafts --
-- Webhooks of a drawing whose path is another webhook's.
SELECT step, draft->>'path' AS path FROM webhook
 WHERE workflow_id = %(workflow)s AND draft IS NOT NULL AND test_path IS NULL
 ORDER BY step;

-- insert_webhook --
INSERT INTO webhook (id, org_id, workflow_id, step, source, live, draft, path, test_path, made_path)
SELECT %(id)s, %(org)s, workflow.id, %(step)s, 'api', %(hook)s, %(hook)s, %(path)s, %(path)s, %(path)s
  FROM workflow WHERE org_id = %(org)s AND id = %(workflow)s
RETURNING id;

-- get_webhook --
SELECT webhook.id, webhook.workflow_id, webhook.step, webhook.source, coalesce(live, draft) AS hook, path, test_path,
       is_enabled, live IS NOT NULL AND published_version IS NOT NULL AS is_live, webhook.created_at, webhook.updated_at,
       (SELECT coalesce(json_agg(json_build_object('id', secret.id, 'created_at', secret.created_at,
                                                   'expires_at', secret.expires_at) ORDER BY secret.created_at DESC), '[]')
          FROM webhook_secret AS secret
         WHERE webhook_id = webhook.id AND (expires_at IS NULL OR expires_at > now())) AS secrets
  FROM webhook JOIN workflow ON workflow.id = workflow_id
 WHERE webhook.org_id = %(org)s AND webhook.id = %(id)s;

-- list_webhooks --
SELECT webhook.id, webhook.workflow_id, webhook.step, webhook.source, coalesce(live, draft) AS hook, path, test_path,
       is_enabled, live IS NOT NULL AND published_version IS NOT NULL AS is_live, webhook.created_at, webhook.updated_at,
       (SELECT coalesce(json_agg(json_build_object('id', secret.id, 'created_at', secret.created_at,
                                                   'expires_at', secret.expires_at) ORDER BY secret.created_at DESC), '[]')
          FROM webhook_secret AS secret
         WHERE webhook_id = webhook.id AND (expires_at IS NULL OR expires_at > now())) AS secrets
  FROM webhook JOIN workflow ON workflow.id = workflow_id
 WHERE webhook.org_id = %(org)s
   AND (%(workflow)s::uuid IS NULL OR workflow_id = %(workflow)s::uuid)
   AND (%(before)s::uuid IS NULL OR webhook.id < %(before)s::uuid)
 ORDER BY webhook.id DESC
 LIMIT %(limit)s;

-- change_webhook --
-- What a drawing says of its webhook is changed there.
UPDATE webhook
   SET is_enabled = coalesce(%(is_enabled)s::boolean, is_enabled),
       live = coalesce(%(hook)s::json, live), draft = coalesce(%(hook)s::json, draft),
       path = coalesce(%(path)s::text, path), test_path = coalesce(%(path)s::text, test_path), updated_at = now()
 WHERE org_id = %(org)s AND id = %(id)s AND (source = 'api' OR %(hook)s::json IS NULL)
RETURNING id;

-- delete_webhook --
DELETE FROM webhook WHERE org_id = %(org)s AND id = %(id)s AND (source = 'api' OR (live IS NULL AND draft IS NULL))
RETURNING id;

-- called --
-- The webhook that answers at an address: of the published version, or of the drawing that is being edited.
SELECT webhook.id, webhook.org_id, webhook.workflow_id, webhook.step,
       CASE WHEN %(is_test)s::boolean THEN draft ELSE live END AS hook,
       CASE WHEN %(is_test)s::boolean THEN workflow.version ELSE workflow.published_version END AS version,
       now() AS now,
       (SELECT coalesce(json_agg(sealed ORDER BY secret.created_at DESC), '[]')
          FROM webhook_secret AS secret
         WHERE webhook_id = webhook.id AND (expires_at IS NULL OR expires_at > now())) AS sealed
  FROM webhook JOIN workflow ON workflow.id = workflow_id
 WHERE is_enabled
   AND CASE WHEN %(is_test)s::boolean
            THEN test_path = %(path)s::text AND draft IS NOT NULL
            ELSE path = %(path)s::text AND live IS NOT NULL AND published_version IS NOT NULL END;

-- count_secrets --
SELECT count(*) AS secrets FROM webhook_secret
 WHERE webhook_id = %(webhook)s AND (expires_at IS NULL OR expires_at > now());

-- insert_secret --
INSERT INTO webhook_secret (id, webhook_id, sealed, is_drawn) VALUES (%(id)s, %(webhook)s, %(sealed)s, %(is_drawn)s);

-- drawn_secrets --
SELECT id, sealed FROM webhook_secret WHERE webhook_id = %(webhook)s AND is_drawn;

-- delete_secrets --
DELETE FROM webhook_secret WHERE id = ANY(%(ids)s::uuid[]);

-- expire_secrets --
-- All secrets there are end soon, as a new one takes their place.
UPDATE webhook_secret SET expires_at = least(expires_at, now() + %(overlap)s::interval)
 WHERE webhook_id = %(webhook)s;

-- count_delivery --
-- One more delivery this minute, of its webhook and of its organisation.
INSERT INTO delivery_count (of, minute, count)
SELECT each, date_trunc('minute', now()), 1 FROM unnest(%(of)s::uuid[]) AS each ORDER BY each
    ON CONFLICT (of, minute) DO UPDATE SET count = delivery_count.count + 1
RETURNING of, count, extract(epoch FROM minute + interval '1 minute' - now())::double precision AS seconds_left;
