-- What the presence scripts share; broker/redis/presence.py puts it in front of each of them. Theory: broker/presence.py.
--
-- meta   HASH  t time of the last heartbeat, s end of the last stall, w whole again after
-- nodes  ZSET  incarnation -> end of its lease. Membership is the fence; the time only says who may be fenced
-- dead   ZSET  incarnation -> fenced at. Its share is being given up
-- n      HASH  the share of one incarnation: # last sequence number applied, '<room> <user>' -> connections
-- scope  HASH  one room, or everywhere: e epoch, v version, '<user>' -> connections of all nodes, 0 during grace
-- grace  ZSET  '<room> <user>' -> when the user goes offline
--
-- Users are JSON text and room ids hold no space, so no field or member can be taken for another. Times are ms.

local now = (function() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end)()

-- The scopes a script declared: KEYS from `key` on, and for each its room ('' for everywhere) and channel from `arg` on.
local function scopes_of(key, arg)
  local scopes = {}
  for i = key, #KEYS do
    scopes[#scopes + 1] = { key = KEYS[i], room = ARGV[arg], channel = ARGV[arg + 1] }
    arg = arg + 2
  end
  return scopes, arg
end

-- One transition: the next version of the scope, sent on its channel. The last one to go takes the scope along; the
-- next one to come opens it with a fresh epoch, so no version is ever used twice.
local function emit(scope, user, online, fresh)
  local epoch = redis.call('HGET', scope.key, 'e')
  if not epoch then
    epoch = fresh
    redis.call('HSET', scope.key, 'e', epoch)
  end
  local version = redis.call('HINCRBY', scope.key, 'v', 1)
  redis.call('PUBLISH', scope.channel, '\1' .. cmsgpack.pack({ 2, epoch, version, user, online }))
  if online == 0 and redis.call('HLEN', scope.key) == 2 then redis.call('DEL', scope.key) end
end

-- Move the connections of one user in one scope by `difference`.
local function move(scope, user, difference, grace, grace_ms, fresh)
  local entity = scope.room .. ' ' .. user
  local visible = redis.call('HGET', scope.key, user)
  local before = tonumber(visible or 0)
  local after = before + difference
  if after > 0 then
    redis.call('HSET', scope.key, user, after)
    if not visible then
      emit(scope, user, 1, fresh)
    elseif before == 0 then
      redis.call('ZREM', grace, entity)
    end
  elseif before > 0 then
    if grace_ms > 0 then
      redis.call('HSET', scope.key, user, 0)
      redis.call('ZADD', grace, now + grace_ms, entity)
    else
      redis.call('HDEL', scope.key, user)
      emit(scope, user, 0)
    end
  end
end

-- ms until the first grace period ends; -1 if there is none
local function due(grace)
  local first = redis.call('ZRANGE', grace, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, first[2] - now) or -1
end
