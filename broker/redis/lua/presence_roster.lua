-- Who is here, at one version.
--
-- KEYS   1 meta, 2 scope
-- ARGV   1 lease_ms
-- Reply  [field, value, ..., ms until every living node has reported again after a loss of data or 0]

local reply = redis.call('HGETALL', KEYS[2])
local lease_ms, meta = tonumber(ARGV[1]), redis.call('HMGET', KEYS[1], 't', 'w')
local last, whole = tonumber(meta[1]), tonumber(meta[2])
-- No node has reported yet; or a stall kept some from it, and the heartbeat that will say so has not come yet.
local unheard = not whole or (whole > last and now - last > lease_ms / 2)
reply[#reply + 1] = unheard and lease_ms or math.max(0, whole - now)
return reply
