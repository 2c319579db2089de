-- Make somebody a member of a room, or change or end a membership, as far as the room and who does it allow.
--
-- KEYS  1 room, 2 members, 3 meta   as in append.lua and log.lua
-- ARGV  1 user     whose membership it is
--       2 role     number of the role to have; 0: none, the membership ends
--       3 keep     1: who is a member already stays what he is
--       4 by       who does it; '' for the server
--       5 granted  number of the role that tokens give to whoever does it
--       6 least    number of the role it takes to do this to somebody else
--       7 most     members that the room may have; 0: any number
-- Returns {before, after}, numbers of roles; or {-1, why}, with why one of missing, outsider, rank, last, full.

local OWNER, MEMBER = 4, 2

local public = redis.call('HGET', KEYS[1], 'public')
if not public then return {-1, 'missing'} end
local function role_of(user) return tonumber(string.match(redis.call('HGET', KEYS[2], user) or '0', '^%d+')) end
local before, after = role_of(ARGV[1]), tonumber(ARGV[2])
local stays = ARGV[3] == '1' and before > 0

if ARGV[4] == ARGV[1] then
  -- By himself one comes in by an open door or by a token, and otherwise becomes only less.
  local may_come = before == 0 and after <= MEMBER and (public == '1' or ARGV[5] ~= '0')
  if before == 0 and after > 0 and not may_come then return {-1, 'outsider'} end
  if before > 0 and after > before and not stays then return {-1, 'rank'} end
elseif ARGV[4] ~= '' then
  local actor = math.max(tonumber(ARGV[5]), role_of(ARGV[4]))
  local below = stays or actor == OWNER or (before < actor and after <= actor)
  if actor < tonumber(ARGV[6]) or not below then return {-1, 'rank'} end
end
if stays or before == after then return {before, before} end
if before == OWNER and after < OWNER then
  local owners = 0
  for _, member in ipairs(redis.call('HVALS', KEYS[2])) do
    if string.sub(member, 1, 1) == '4' then owners = owners + 1 end
  end
  if owners == 1 then return {-1, 'last'} end
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if after == 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
elseif before > 0 then
  local rest = string.match(redis.call('HGET', KEYS[2], ARGV[1]), '^%d+( .*)$')
  redis.call('HSET', KEYS[2], ARGV[1], after .. rest)
else
  local most = tonumber(ARGV[7])
  if most > 0 and redis.call('HLEN', KEYS[2]) >= most then return {-1, 'full'} end
  local meta = redis.call('HMGET', KEYS[3], 'epoch', 'offset')
  redis.call('HSET', KEYS[2], ARGV[1],
    string.format('%d %d %d %s', after, tonumber(meta[2] or 0), now, meta[1] or ''))
end
redis.call('HSET', KEYS[1], 'alive', string.format('%d', now))  -- see dissolve.lua
return {before, after}
