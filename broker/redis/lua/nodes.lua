-- The descriptions of the nodes that live; the others are removed.
--
-- KEYS   1 nodes (HASH), as in announce.lua
-- Reply  the descriptions

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local all = redis.call('HGETALL', KEYS[1])
local live = {}
for i = 1, #all, 2 do
  local expires, description = string.match(all[i + 1], '^(%d+) (.*)$')
  if expires and tonumber(expires) > now then
    live[#live + 1] = description
  else
    redis.pcall('HDEL', KEYS[1], all[i])
  end
end
return live
