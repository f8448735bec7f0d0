-- A node's own description, with a time to live by the clock of Redis.
--
-- KEYS   1 nodes (HASH node id -> "<expiry in ms> <description>")
-- ARGV   1 node id, 2 ttl_ms, 3 description
-- Reply  number of fields that are new

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + tonumber(ARGV[2]), ARGV[3]))
