-- The due leaves of a room were announced: note when the next one is, unless somebody else has noted an earlier one.
--
-- KEYS  1 due   as in due.lua
-- ARGV  1 room
--       2 until  as due.lua returned it
--       3 next   Unix ms of the next one; 0: there is none
-- Returns 1.

if ARGV[3] ~= '0' then
  local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if not at or tonumber(at) == tonumber(ARGV[2]) or tonumber(at) > tonumber(ARGV[3]) then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
elseif tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) == tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
