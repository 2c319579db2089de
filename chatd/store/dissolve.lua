-- Take a created room away with all that was said in it, on somebody's word or because it has long been idle.
--
-- KEYS  1 room, 2 members   as in append.lua
--       3 present           as in join.lua
--       4 ...               what else belongs to the room
-- ARGV  1 by       who does it; '' for the server
--       2 granted  number of the role that tokens give to whoever does it
--       3 least    number of the role it takes
--       4 idle_ms  only if nobody is present and nothing was said or changed for so long; 0: in any case
-- Returns {1, member, ...} with those who belonged to it; or {-1, why}, with why one of missing, rank, busy.

local room = redis.call('HMGET', KEYS[1], 'public', 'created', 'alive')
if not room[1] then return {-1, 'missing'} end
if ARGV[1] ~= '' then
  local member = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '0', '^%d+')
  if math.max(tonumber(ARGV[2]), tonumber(member)) < tonumber(ARGV[3]) then return {-1, 'rank'} end
end
local idle_ms = tonumber(ARGV[4])
if idle_ms > 0 then
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local alive = math.max(tonumber(room[2] or 0), tonumber(room[3] or 0))
  if redis.call('EXISTS', KEYS[3]) == 1 or alive + idle_ms > now then return {-1, 'busy'} end
end
local reply = {1}
for _, user in ipairs(redis.call('HKEYS', KEYS[2])) do reply[#reply + 1] = user end
redis.call('UNLINK', KEYS[1], KEYS[2])
for i = 4, #KEYS do redis.call('UNLINK', KEYS[i]) end
return reply
