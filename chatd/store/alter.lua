-- Change what a room's record says.
--
-- KEYS  1 room, 2 members   as in append.lua
-- ARGV  1 by       who does it; '' for the server
--       2 granted  number of the role that tokens give to whoever does it
--       3 least    number of the role it takes
--       4 created  1: only in a room that somebody created
--       5 keys     fields that begin with 'k:' are the application's own; at most this many
--       6 ...      field, value, field, value, ...; an empty value takes the field out
-- Returns {1, field, ...} with the fields that are different now; or {-1, why}, with why one of missing, rank, full.

if ARGV[4] == '1' and redis.call('HEXISTS', KEYS[1], 'public') == 0 then return {-1, 'missing'} end
if ARGV[1] ~= '' then
  local member = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '0', '^%d+')
  if math.max(tonumber(ARGV[2]), tonumber(member)) < tonumber(ARGV[3]) then return {-1, 'rank'} end
end

local had, own = {}, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  had[all[i]] = all[i + 1]
  if string.sub(all[i], 1, 2) == 'k:' then own = own + 1 end
end
local changed = {1}
for i = 6, #ARGV, 2 do
  if (had[ARGV[i]] or '') ~= ARGV[i + 1] then
    changed[#changed + 1] = ARGV[i]
    if string.sub(ARGV[i], 1, 2) == 'k:' then
      if not had[ARGV[i]] then own = own + 1 elseif ARGV[i + 1] == '' then own = own - 1 end
    end
  end
end
if own > tonumber(ARGV[5]) then return {-1, 'full'} end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i]) else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return changed
