-- Remove one user's receipt marks from some rooms.
--
-- KEYS   marks (HASH) of each room, as in append.lua
-- ARGV   1 the user as JSON text
-- Reply  in how many there was one

local found = 0
for _, marks in ipairs(KEYS) do
  found = found + redis.call('HDEL', marks, ARGV[1])
end
return found
