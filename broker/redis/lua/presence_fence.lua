-- End an incarnation: nothing it sends is accepted any more, its share will be reaped.
--
-- KEYS   1 nodes, 2 dead
-- ARGV   1 incarnation
-- Reply  1 if it lived

local lived = redis.call('ZREM', KEYS[1], ARGV[1])
if lived == 1 then redis.call('ZADD', KEYS[2], now, ARGV[1]) end
return lived
