-- The receipt marks of a room, in the epoch of its log.
--
-- KEYS   1 meta, 2 marks (HASH), as in append.lua
-- ARGV   1 ttl_s of one user's mark
-- Reply  [user, delivered, read, ...]

local epoch = redis.call('HGET', KEYS[1], 'e')
local all = redis.call('HGETALL', KEYS[2])
local now = redis.call('TIME')[1]
local since = now - ARGV[1]
local marks, same = {}, false
for i = 1, #all, 2 do
  if all[i] == 'e' then
    same = all[i + 1] == epoch
  else
    local delivered, read, at = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
    if tonumber(at) >= since then
      marks[#marks + 1] = all[i]
      marks[#marks + 1] = delivered
      marks[#marks + 1] = read
    end
  end
end
return same and marks or {}
