-- Who is here, at one version.
--
-- KEYS   1 meta, 2 scope
-- ARGV   1 lease_ms
-- Reply  [field, value, ..., ms until every living node has reported again after a loss of data or 0]

local reply = redis.call('HGETALL', KEYS[2])
local whole = redis.call('HGET', KEYS[1], 'w') -- without it no node has reported at all yet
reply[#reply + 1] = whole and math.max(0, whole - now) or tonumber(ARGV[1])
return reply
