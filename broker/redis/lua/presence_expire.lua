-- Tell of users whose grace is over and name the next ones.
--
-- KEYS   1 meta, 2 grace, 3.. scopes
-- ARGV   1 lease_ms, 2 grace_ms, 3 page, then per scope: room, channel,
--        then per entity as named before: number of the scope (1..), user
-- Reply  [ms until the first grace period ends or -1, the next '<room> <user>'; none when all is done]

local meta = redis.call('HMGET', KEYS[1], 't', 's')
local last, stalled = tonumber(meta[1]), tonumber(meta[2])
-- after a stall (heartbeat.lua) everyone has a whole grace period to reappear
if not last or now < last or now - last > ARGV[1] / 2 or now < stalled + ARGV[2] then return { due(KEYS[2]), {} } end
local scopes, arg = scopes_of(3, 4)
for i = arg, #ARGV, 2 do
  local scope, user = scopes[tonumber(ARGV[i])], ARGV[i + 1]
  local entity = scope.room .. ' ' .. user
  local ends = redis.call('ZSCORE', KEYS[2], entity)
  if ends and tonumber(ends) <= now then
    redis.call('ZREM', KEYS[2], entity)
    redis.call('HDEL', scope.key, user)
    emit(scope, user, 0)
  end
end
return { due(KEYS[2]), redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3]) }
