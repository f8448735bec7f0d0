-- The lease of one incarnation, and the node's loop-back probe: whatever the status, the nonce comes back on its channel.
-- Published before the first write, because a server that is out of memory refuses the write and is not deaf for that.
--
-- KEYS   1 meta, 2 nodes, 3 dead, 4 grace, 5 n of the incarnation
-- ARGV   1 incarnation, 2 the last sequence number known to be applied, 3 lease_ms, 4 grace_ms, 5 page,
--        6 channel of the node, 7 nonce
-- Reply  [status, ms until the first grace period ends or -1, dead incarnations, '<room> <user>' whose grace is over]

redis.call('PUBLISH', ARGV[6], '\1' .. cmsgpack.pack({ 3, ARGV[7] }))
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return { 'FENCED', -1, {}, {} } end
local lease_ms, grace_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local rolled_back = tonumber(redis.call('HGET', KEYS[5], '#') or 0) < tonumber(ARGV[2])

-- Nobody was heard for half a lease, or the clock was set back: Redis was frozen, restarted or cut off, not the nodes.
-- Everyone gets a whole lease before he may be taken for dead, and a whole grace period to reappear.
local meta = redis.call('HMGET', KEYS[1], 't', 's', 'w')
local last, stalled, whole = tonumber(meta[1]), tonumber(meta[2]), tonumber(meta[3])
if now < last or now - last > lease_ms / 2 then
  stalled = now
  redis.call('HSET', KEYS[1], 's', now)
  if whole > last then whole = now + lease_ms end -- who had not reported again before could not do so meanwhile
end
-- After the clock was set back no period may be longer than it was meant.
redis.call('HSET', KEYS[1], 't', now, 'w', math.min(whole, now + lease_ms))
for key, latest in pairs({ [KEYS[2]] = now + lease_ms, [KEYS[4]] = now + grace_ms }) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. string.format('%.0f', latest), '+inf')) do
    redis.call('ZADD', key, latest, member)
  end
end

redis.call('ZADD', KEYS[2], now + lease_ms, ARGV[1])
if now >= stalled + lease_ms then
  for _, incarnation in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 64)) do
    redis.call('ZREM', KEYS[2], incarnation)
    redis.call('ZADD', KEYS[3], now, incarnation)
  end
end
local expired = {}
if now >= stalled + grace_ms then
  expired = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, ARGV[5])
end
return { rolled_back and 'ROLLBACK' or 'OK', due(KEYS[4]), redis.call('ZRANGE', KEYS[3], 0, 63), expired }
