-- Who is here, at one version.
--
-- KEYS   1 meta, 2 scope
-- Reply  [ms until every living node has reported again after a loss of data or 0, field, value, ...]

local reply = redis.call('HGETALL', KEYS[2])
table.insert(reply, 1, math.max(0, (redis.call('HGET', KEYS[1], 'w') or 0) - now))
return reply
